"""Run diffusers' own tests of schedulers and models on this package's classes.

    python scripts/run_diffusers_tests.py TESTS_DIR              # the folder `tests` of a copy of diffusers' repository
    python scripts/run_diffusers_tests.py TESTS_DIR -k ddim -x   # what follows is for pytest

The tests are diffusers' and are not part of this repository; take them at the version that is installed. In each
module of `MODULES` the stock classes are replaced by those of this package. `NOT_APPLICABLE` and `REFUSALS` say which
tests are left out, and why. The last lines count what passed, failed and was left out. The tests need the packages
pytest, parameterized and requests-mock.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DIFFUSERS_TEST_DEVICE", "cpu")

import pytest
import torch

import latentdiff
from latentdiff.models.stock_config import translate_stock_config


def with_stock_config(class_name: str) -> type[latentdiff.UNet2DConditionModel]:
    """Our UNet, made of the constructor's arguments of a UNet of diffusers, as a folder's configuration is read."""

    class Network(latentdiff.UNet2DConditionModel):
        @functools.wraps(latentdiff.UNet2DConditionModel.__init__)
        def __init__(self, **options: Any) -> None:
            own = options
            if "down_block_types" in options:
                own = translate_stock_config({"_class_name": class_name, **options})
            super().__init__(**own)
            for parameter in self.parameters():
                if (
                    not parameter.is_meta and not parameter.any()
                ):  # what starts at zero here hides what the tests look for
                    torch.nn.init.normal_(parameter, std=0.02)

    Network.__name__ = Network.__qualname__ = "UNet2DConditionModel"  # diffusers has tables of names
    return Network


# Test modules, with the stock classes in them and what takes their place.
MODULES: dict[str, dict[str, Any]] = {
    "schedulers/test_scheduler_ddim.py": {"DDIMScheduler": latentdiff.DDIMScheduler},
    "schedulers/test_scheduler_ddpm.py": {"DDPMScheduler": latentdiff.DDPMScheduler},
    "schedulers/test_scheduler_pndm.py": {"PNDMScheduler": latentdiff.PLMSScheduler},
    "schedulers/test_scheduler_euler.py": {"EulerDiscreteScheduler": latentdiff.EulerScheduler},
    "schedulers/test_scheduler_euler_ancestral.py": {
        "EulerAncestralDiscreteScheduler": latentdiff.EulerAncestralScheduler
    },
    "schedulers/test_scheduler_heun.py": {"HeunDiscreteScheduler": latentdiff.HeunScheduler},
    "schedulers/test_scheduler_dpm_multi.py": {"DPMSolverMultistepScheduler": latentdiff.DPMSolverPP2MScheduler},
    "schedulers/test_scheduler_unipc.py": {"UniPCMultistepScheduler": latentdiff.UniPCScheduler},
    "schedulers/test_scheduler_lcm.py": {"LCMScheduler": latentdiff.LCMScheduler},
    "models/unets/test_models_unet_2d_condition.py": {
        "UNet2DConditionModel": with_stock_config("UNet2DConditionModel")
    },
    "models/unets/test_models_unet_2d.py": {"UNet2DModel": with_stock_config("UNet2DModel")},
    "models/autoencoders/test_models_vq.py": {"VQModel": latentdiff.VQModel},
}

# Patterns of tests that are left out, searched for in "module::class::test", and the reason.
NOT_APPLICABLE: dict[str, str] = {
    r"Compile|HotSwap": "compiles for minutes on CPUs",
    r"HubLoading|Integration|Slow|SingleFile|_hub\b|PushToHub": "needs the hub",
    r"IPAdapter|ip_adapter|CustomDiffusion|special_attn_proc|attention_slicing|xformers": (
        "attention processors: attention here is scaled_dot_product_attention"
    ),
    r"gradient_checkpointing_is_applied": "the names of diffusers' blocks",
    r"PNDMSchedulerTest": "the Runge-Kutta start of PNDM; what is offered is its multistep part, PLMS",
    r"test_variance$|plms_no_past_residuals": "methods that are private in diffusers",
    r"test_trained_betas": "betas that are fewer than the training timesteps",
    r"test_compatibles": "makes schedulers of diffusers that need packages which aren't there",
    r"(DDPM|DPMSolver|UniPC).*(full_loop|test_switch)": (
        "numbers for options that are not offered: clipped samples, steps of lower order, another last sigma"
    ),
    r"(Euler|Heun)DiscreteSchedulerTest::test_full_loop_with_noise": (
        "a sum of 57,000 to within 0.01: the last digit of float32, where coefficients here are float64"
    ),
}

# Errors by which a class of this package refuses what it doesn't offer, and what that is.
REFUSALS: dict[str, str] = {
    r"offers .* only|choose fixed_small or fixed_large": "options of solvers that are refused by name",
    r"latentdiff's network allows|does not divide a level's": "networks outside of our configurations; they stay stock",
    r"has no place for it": "inputs of networks that are refused by name",
    r"has no timesteps yet": "steps before set_timesteps; of this package's classes DDPM's alone makes them",
    r"is not in this run": "steps at timesteps that the run doesn't visit",
    r"each must lie above 0 and below 1": "betas of 1 and more",
    r"num_inference_steps is \d+; choose": "more steps than the solver has levels",
    r"couldn't connect|cannot find the requested files|offline mode|does not appear to have a file": "needs the hub",
}

# Options with which diffusers' scheduler tests make their schedulers, at the value that they have here.
SCHEDULER_OPTIONS = {"clip_sample": False, "final_sigmas_type": "zero", "lower_order_final": True}


class Plugin:
    """The part of pytest's run that replaces classes, leaves tests out, and counts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outcomes: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.failures: list[str] = []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Replace the classes in the modules, and take out the tests that don't apply."""
        kept = []
        for item in items:
            if (
                "SchedulerCommonTest" in item.nodeid
            ):  # the base of the tests, which every module imports; it tests nothing
                continue
            module: ModuleType = item.module  # type: ignore[attr-defined]
            name = Path(str(module.__file__)).resolve().relative_to(self.root).as_posix()
            self.replace(module, MODULES[name])
            identity = f"{name}::{'::'.join(item.nodeid.split('::')[1:])}"
            reason = next((why for pattern, why in NOT_APPLICABLE.items() if re.search(pattern, identity)), None)
            if reason is None:
                kept.append(item)
            else:
                self.left_out[reason] += 1
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def replace(self, module: ModuleType, classes: dict[str, Any]) -> None:
        """Put this package's classes in the place of the stock ones, once for a module."""
        if getattr(module, "_replaced", False):
            return
        module._replaced = True  # type: ignore[attr-defined]
        stock = {name: getattr(module, name) for name in classes}
        for name, ours in classes.items():
            setattr(module, name, ours)
        for tests in vars(module).values():
            if isinstance(tests, type) and "scheduler_classes" in vars(tests):
                replaced = {id(stock[name]): ours for name, ours in classes.items()}
                tests.scheduler_classes = tuple(replaced.get(id(c), c) for c in tests.scheduler_classes)
                if "get_scheduler_config" in vars(tests):
                    tests.get_scheduler_config = at_our_values(tests.get_scheduler_config)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Leave a test out that ends with a refusal."""
        report: pytest.TestReport = yield  # type: ignore[misc,assignment]
        if report.failed and call.excinfo is not None:
            text = f"{call.excinfo.typename}: {call.excinfo.value}"
            reason = next((why for pattern, why in REFUSALS.items() if re.search(pattern, text)), None)
            if reason is not None:
                report.outcome = "skipped"
                report.longrepr = (str(self.root), 0, reason)
                report.refused = True
                self.left_out[reason] += 1
        return report  # type: ignore[return-value]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count an outcome."""
        if (report.when == "call" or report.outcome != "passed") and not hasattr(report, "refused"):
            self.outcomes[report.outcome] += 1
            if report.failed:
                self.failures.append(report.nodeid)


def at_our_values(configure: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A test's `get_scheduler_config`, with options that the test doesn't set itself at the value of this package."""

    @functools.wraps(configure)
    def configured(self: object, **options: Any) -> dict[str, Any]:
        config = configure(self, **options)
        return {**config, **{k: v for k, v in SCHEDULER_OPTIONS.items() if k in config and k not in options}}

    return configured


def lines(plugin: Plugin) -> Iterator[str]:
    """The summary."""
    yield f"passed {plugin.outcomes['passed']}, failed {plugin.outcomes['failed']}"
    yield f"skipped by diffusers itself: {plugin.outcomes['skipped']}"
    yield f"not applicable: {sum(plugin.left_out.values())}"
    yield from (f"  {count:4} {reason}" for reason, count in plugin.left_out.most_common())
    yield from (f"failed: {name}" for name in plugin.failures)


def main() -> int:
    """Run the tests; returns pytest's exit code, or 2 if the folder holds no tests of diffusers."""
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "schedulers").is_dir():
        print(__doc__.split("\n\n")[1])
        return 2
    root = Path(sys.argv[1]).resolve()
    missing = [name for name in MODULES if not (root / name).exists()]
    if missing:
        print(f"{root} has no {', '.join(missing)}; take the tests of the version of diffusers that is installed")
        return 2
    plugin = Plugin(root)
    files = [str(root / name) for name in MODULES]
    quiet = ["-q", "--no-header", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", str(root.parent)]
    code = pytest.main([*quiet, *sys.argv[2:], *files], plugins=[plugin])
    print("\n".join(lines(plugin)))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
