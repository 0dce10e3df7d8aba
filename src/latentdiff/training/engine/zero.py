"""DeepSpeed's ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054), stages 1 and 2: a process has a part of the optimiser.

The engine makes the optimiser's step as it goes backward, and none where the gradient isn't finite. Weights are whole
on every process, so that only the optimiser's state has to be put together for checkpoints, and cut up again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn

from latentdiff.compat import link_optimizer_state
from latentdiff.config import check
from latentdiff.training.engine.options import Recipe
from latentdiff.types import JSON


def configure(accelerator: Accelerator, recipe: Recipe) -> None:
    """Write what the recipe says into the configuration that accelerate gives DeepSpeed.

    Raises:
        ConfigError: If the configuration says otherwise, or asks for what a run doesn't do.
    """
    config = accelerator.deepspeed_plugin.deepspeed_config
    stage = config["zero_optimization"].get("stage", 0)
    check(
        stage in (1, 2),
        f"DeepSpeed is configured for ZeRO stage {stage}; give 1 or 2, or FSDP, which shards weights as stage 3 does",
    )
    check(recipe.mixed_precision != "fp16", "mixed_precision is 'fp16', which does not go with DeepSpeed; give 'bf16'")
    check(
        accelerator.mixed_precision == recipe.mixed_precision,
        f"DeepSpeed is configured for {accelerator.mixed_precision}, but mixed_precision is {recipe.mixed_precision!r};"
        " leave bf16 and fp16 out of its configuration",
    )
    check(recipe.optimizer.name != "Adafactor", "optimizer.name is 'Adafactor', which ZeRO can't cut up; give 'adamw'")
    for name in ("optimizer", "scheduler"):
        check(name not in config, f"DeepSpeed is configured with {name!r}, which the recipe says; leave it out")
    batch = recipe.train_batch_size * recipe.gradient_accumulation_steps
    settings = {
        "train_micro_batch_size_per_gpu": recipe.train_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "train_batch_size": batch * accelerator.num_processes,
        "gradient_clipping": recipe.optimizer.max_grad_norm,
        "zero_force_ds_cpu_optimizer": False,  # else another optimiser than the recipe's where its state is offloaded
    }
    for name, value in settings.items():
        given = config.get(name, "auto")
        check(
            given in ("auto", value), f"DeepSpeed is configured with {name} {given}, the recipe says {value}; give auto"
        )
    # DeepSpeed's own bf16 would turn the weights into bf16; this leaves them, and their average, in fp32.
    autocast = {"enabled": recipe.mixed_precision == "bf16", "dtype": "bfloat16"}
    config.update(settings, bf16={"enabled": False}, torch_autocast=autocast)


def skippable(loss: torch.Tensor) -> torch.Tensor:
    """The loss () such that its gradient isn't finite where it isn't, by which the engine knows what to skip."""
    return loss * (1 + 0 * loss.detach())


def gather_optimizer_state(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], kept: bool) -> JSON:
    """The state that torch's optimiser has without ZeRO, on the CPU; all processes have to call it.

    Args:
        optimizer: The optimiser as accelerate prepared it.
        parameters: All parameters that it trains, in its order.
        kept: Whether this process needs the state; it gets an empty one else.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    (group,) = optimizer.param_groups
    (flat,) = group["params"]
    state: dict[int, JSON] = {}
    for number, parameter in enumerate(parameters):
        for name, value in optimizer.state[flat].items():
            if isinstance(value, torch.Tensor) and value.shape == flat.shape:
                value = safe_get_full_optimizer_state(parameter, name)  # noqa: PLW2901
            if kept:
                # Each its own, as a step count that parameters share would be counted up by each of them.
                state.setdefault(number, {})[name] = value.cpu().clone() if isinstance(value, torch.Tensor) else value
    return {"state": state, "param_groups": [{**group, "params": list(range(len(parameters)))}]}


def scatter_optimizer_state(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], saved: JSON) -> None:
    """Go on with weights that were loaded into the parameters, and with a whole optimiser state.

    Args:
        optimizer: The optimiser as accelerate prepared it, which has made no step yet.
        parameters: All parameters that it trains, in its order.
        saved: The state as `gather_optimizer_state` or torch's optimiser without ZeRO made it.
    """
    from deepspeed.utils import safe_set_full_optimizer_state

    zero = optimizer.optimizer  # type: ignore[attr-defined]
    zero.refresh_fp32_params()
    if not saved["state"]:
        return
    (group,) = optimizer.param_groups
    (flat,) = group["params"]
    number, values = next(iter(saved["state"].items()))
    shape = parameters[number].shape
    parts = [name for name, v in values.items() if isinstance(v, torch.Tensor) and v.shape == shape]
    empty = {name: torch.zeros_like(flat) if name in parts else value for name, value in values.items()}
    groups = [{**group, "params": [0]} for group in saved["param_groups"]]
    zero.optimizer.load_state_dict({"state": {0: empty}, "param_groups": groups})
    link_optimizer_state(zero)
    for number, values in saved["state"].items():
        for name in parts:
            safe_set_full_optimizer_state(parameters[number], values[name], name)
