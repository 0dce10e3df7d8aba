"""`pipe.compile()`: networks compiled as fits the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from torch import nn

from latentdiff.compat import OFFLOAD_HOOK, progress_bar_config
from latentdiff.compilation.calls import Flatten, flatten_simple, flatten_unet
from latentdiff.compilation.forward import CompiledForward, FrozenForward, JustInTimeForward, Target
from latentdiff.compilation.repay import PlannedCalls
from latentdiff.errors import ConfigError
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.nn.int8 import check_whole
from latentdiff.pipelines.options import check_count
from latentdiff.registry import nearest
from latentdiff.types import JSON, DenoisingNetwork, FirstStage

COMPONENTS = ("unet", "vae", "text_encoder")


class CompileMixin:
    """Mixin of all pipelines that compiles their networks."""

    vae: FirstStage
    unet: DenoisingNetwork

    def compile(
        self,
        components: str | Sequence[str] | None = None,
        *,
        freeze: bool | None = None,
        regional: bool = False,
        mode: str | None = None,
        backend: str = "inductor",
        planned_calls: Mapping[str, int] | None = None,
    ) -> None:
        """Compile networks, each when it is first called with arguments of a kind.

        On a CPU, the weights are frozen into a library for each shape, which is kept on disk (in `HF_ASSETS_CACHE`), so
        that the next process has it at once. Elsewhere it is `torch.compile`, by default with CUDA graphs. Results
        differ from those uncompiled by rounding. A network runs uncompiled where gradients are recorded, in training,
        under autocast and with adapters, of which a warning tells.

        Args:
            components: Those of "unet", "vae" (its decoder) and "text_encoder" to compile; by default those of
                `planned_calls`, else all, but no text encoder where weights are frozen, as it runs once a call.
            freeze: Whether to freeze the weights, as is the default on CPUs, where compiling gains nothing else.
            regional: Whether to compile each repeated block by itself, which takes a fraction of the time and gains
                less; without frozen weights.
            mode: That of `torch.compile`, "reduce-overhead" (CUDA graphs) by default on CUDA; without frozen weights.
            backend: That of `torch.compile`; without frozen weights.
            planned_calls: How many calls of each of the components are planned. Then a network is compiled when it is
                known that the time which that saves is longer, and goes on uncompiled, with a warning, where it can't
                be compiled. Without, that is an error of the call. With frozen weights.

        Raises:
            ConfigError: If a component is unknown, offloaded, in training mode or can't be frozen, or options don't go
                together.
        """
        on_cpu = self.unet.device.type == "cpu"
        frozen = (on_cpu and not regional and mode is None and backend == "inductor") if freeze is None else freeze
        for option, given in {"regional": regional, "mode": mode, "backend": backend != "inductor"}.items():
            if frozen and given:
                raise ConfigError(f"{option} is given with freeze=True, which goes another way; leave one of them out")
        if not frozen and planned_calls is not None:
            raise ConfigError("planned_calls is for frozen weights, which CPUs have; leave it out, or freeze=False")
        if frozen and not on_cpu:
            raise ConfigError(f"freeze=True is for CPUs, the networks are on {self.unet.device}; leave it out")
        names = self._compilable(components or list(planned_calls or ()) or None, frozen)
        if planned_calls is not None and planned_calls.keys() != set(names):
            given = ", ".join(sorted(planned_calls))
            raise ConfigError(f"planned_calls is for {given}, what is compiled are {', '.join(names)}; give one each")
        made: list[tuple[nn.Module, CompiledForward]] = []
        for name in names:
            owner: nn.Module = getattr(self, name)
            self._check_compilable(name, owner)
            if frozen:
                planned = (
                    None if planned_calls is None else PlannedCalls(check_count("planned_calls", planned_calls[name]))
                )
                made.append(self._freeze(name, owner, planned))
            else:
                options = {"backend": backend, "mode": mode or default_mode(self.unet.device.type, backend)}
                for network in _regions(name, owner) if regional else [_network(name, owner)]:
                    made.append((network, JustInTimeForward(Target(network, name, owner), options)))
        self.uncompile(names)
        for network, forward in made:
            vars(network)["forward"] = forward

    def uncompile(self, components: str | Sequence[str] | None = None) -> None:
        """Let networks run as they are again; all that are compiled by default.

        Args:
            components: As for `compile`.
        """
        for name in _as_list(components) or COMPONENTS:
            owner = getattr(self, name, None)
            for module in owner.modules() if isinstance(owner, nn.Module) else ():
                if isinstance(vars(module).get("forward"), CompiledForward):
                    del vars(module)["forward"]

    def _compilable(self, components: str | Sequence[str] | None, frozen: bool) -> list[str]:
        """The names of the components to compile; ConfigError if one can't be compiled at all."""
        known = [name for name in COMPONENTS if isinstance(getattr(self, name, None), nn.Module)]
        if components is None:
            return [name for name in known if not (frozen and name == "text_encoder")]
        for name in _as_list(components):
            if name not in known:
                raise ConfigError(f"the component {name!r} can't be compiled; {nearest(name, known)}")
        return _as_list(components)

    def _check_compilable(self, name: str, owner: nn.Module) -> None:
        if any(hasattr(module, OFFLOAD_HOOK) for module in owner.modules()):
            raise ConfigError(f"the {name} is offloaded, so that it can't be compiled; load the model without offload")
        if owner.training:
            raise ConfigError(f"the {name} is in training mode, which is not compiled; call pipe.{name}.eval()")

    def _freeze(self, name: str, owner: nn.Module, planned: PlannedCalls | None) -> tuple[nn.Module, CompiledForward]:
        """The module of a component whose weights are frozen, and what takes its `forward`'s place."""
        flatten: Flatten = flatten_simple
        check_whole(
            name,
            owner,
            "which freezing would unpack; compile the others alone, such as compile('vae'), or load the model without "
            "quantize",
        )
        if name == "unet":
            flatten = flatten_unet
            if not isinstance(owner, UNet2DConditionModel):
                raise ConfigError(
                    f"the unet is a stock {type(owner).__name__}, which can't be frozen; compile it with freeze=False"
                )
        if name == "text_encoder" and not isinstance(owner, LDMTextEncoder):
            raise ConfigError(
                f"the text_encoder is a {type(owner).__name__}, which can't be frozen; compile it with freeze=False"
            )
        network, config = _network(name, owner), cast(JSON, owner.config)
        made_of = {key: str(value) for key, value in config.items() if not key.startswith("_")}
        facts = {"component": name, "class": type(network).__qualname__, "config": made_of}
        shown = not progress_bar_config(self).get("disable")
        return network, FrozenForward(Target(network, name, owner), flatten, facts, planned, shown)


def _as_list(components: str | Sequence[str] | None) -> list[str]:
    return [components] if isinstance(components, str) else list(components or ())


def _network(name: str, owner: nn.Module) -> nn.Module:
    """The part of a component that computes, without checks that need its values."""
    part: Any = {"vae": "decoder", "text_encoder": "model"}.get(name)
    found: nn.Module = getattr(owner, part, owner) if part else owner
    return found


def _regions(name: str, owner: nn.Module) -> Iterable[nn.Module]:
    """The repeated blocks of a component."""
    kinds = getattr(owner, "_repeated_blocks", None)
    if not kinds:
        raise ConfigError(f"the {name}, a {type(owner).__name__}, names no repeated blocks; leave regional out")
    return [module for module in owner.modules() if type(module).__name__ in kinds]


def default_mode(device: str, backend: str) -> str | None:
    """CUDA graphs where there are any, since the loop's shapes don't change and small kernels wait for their launch."""
    return "reduce-overhead" if device == "cuda" and backend == "inductor" else None
