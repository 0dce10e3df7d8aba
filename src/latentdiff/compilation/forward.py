"""What takes the place of a network's `forward`: the network compiled, or itself where that would not be the same."""

from __future__ import annotations

import threading
import time
import types
import warnings
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from latentdiff.compat import watch_weights
from latentdiff.compilation.artefacts import Artefact, Function, environment, weights_digest
from latentdiff.compilation.calls import FlatCall, Flatten
from latentdiff.compilation.repay import PlannedCalls
from latentdiff.errors import ConfigError, LatentDiffError, LatentDiffWarning, one_line
from latentdiff.nn.context import RowOfMany
from latentdiff.progress import elapsed
from latentdiff.types import JSON

MOST_PROGRAMS = 4  # of a network that are loaded at once, since each holds the weights packed in its own way


@dataclass(frozen=True)
class Target:
    """A network that is compiled.

    Attributes:
        network: The module whose `forward` is replaced.
        name: Its component's name, for messages.
        owner: The component, whose adapters are those of the module.
    """

    network: nn.Module
    name: str
    owner: nn.Module


class CompiledForward:
    """Base of what takes the place of a network's `forward`.

    Where gradients are recorded, in training, under autocast and with adapters, the network runs as it is: what is
    compiled knows of none of these.

    Attributes:
        takes_rows: That timesteps may come as rows of all those of a run, by which a UNet's bits don't depend on
            whether it prepares them.
    """

    takes_rows = True

    def __init__(self, target: Target) -> None:
        self.target = target
        self.told: set[str] = set()

    def eager(self, *args: Any, **kwargs: Any) -> Any:
        """The network as it is."""
        return type(self.target.network).forward(self.target.network, *args, **kwargs)

    def applies(self) -> bool:
        """Whether what is compiled is what this call asks for."""
        if getattr(self.target.owner, "peft_config", None):
            self.tell(
                f"the {self.target.name} has adapters and runs uncompiled; fuse_lora() and then unload_lora_weights() "
                "makes them a part of its weights"
            )
            return False
        return not (torch.is_grad_enabled() or self.target.network.training or torch.is_autocast_enabled("cpu"))

    def tell(self, line: str) -> None:
        """Warn, once."""
        if line not in self.told:
            self.told.add(line)
            warnings.warn(line, LatentDiffWarning, stacklevel=2)


class JustInTimeForward(CompiledForward):
    """A network through `torch.compile`, which compiles for each shape when it comes.

    With CUDA graphs, a result lies in memory that the next call overwrites, while solvers keep several: it is copied.

    Args:
        target: The network.
        options: Of `torch.compile`.
    """

    def __init__(self, target: Target, options: Mapping[str, Any]) -> None:
        super().__init__(target)
        self.options = options
        kind, network = type(target.network), target.network
        self.compiled = torch.compile(types.MethodType(kind.forward, network), dynamic=False, **options)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target, self.options)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """The network's result."""
        if not self.applies():
            return self.eager(*args, **kwargs)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        out: Any = self.compiled(*(arg.take() if isinstance(arg, RowOfMany) else arg for arg in args), **kwargs)
        if isinstance(out, Tensor):
            return out.clone()
        if isinstance(out, tuple):
            return tuple(part.clone() if isinstance(part, Tensor) else part for part in out)
        return type(out)(**{name: part.clone() for name, part in out.items() if isinstance(part, Tensor)})


@dataclass
class Programs:
    """What is known of a network's compiled programs while its weights are as they are.

    Attributes:
        weights: The state of the weights.
        loaded: The programs by the signature of their calls; None for those that stay uncompiled.
        digest: A hash of the weights, once it was needed.
    """

    weights: list[int]
    loaded: dict[Hashable, Function | None] = field(default_factory=dict)
    digest: str | None = None


class FrozenForward(CompiledForward):
    """A network with its weights frozen, through AOTInductor, for CPUs; an artefact on disk for each kind of call.

    A call of other shapes gets an artefact of its own, as does one after the weights have changed. Threads may call it.

    Args:
        target: The network.
        flatten: Makes tensors of its calls.
        facts: What its code depends on beside its weights: its class and configuration.
        planned: The calls that are planned, if compiling has to repay itself; None to compile in any case.
        shown: Whether progress is shown.
    """

    def __init__(
        self, target: Target, flatten: Flatten, facts: JSON, planned: PlannedCalls | None, shown: bool
    ) -> None:
        super().__init__(target)
        self.flatten, self.facts, self.planned, self.shown = flatten, facts, planned, shown
        # They are made by the first call: where a network is copied, this is made before the copy has its modules.
        self.watch: Callable[[], list[int]] | None = None
        self.programs = Programs([])
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target, self.flatten, self.facts, self.planned, self.shown)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """The network's result.

        Raises:
            ConfigError: If the network can't be compiled, unless compiling has to repay itself.
            InputError: If the artefact can't be saved, unless compiling has to repay itself.
        """
        if not self.applies():
            return self.eager(*args, **kwargs)
        call = self.flatten(self.target.network, *args, **kwargs)
        if call is None:
            given = ", ".join(name for name, value in kwargs.items() if value is not None)
            self.tell(f"the {self.target.name} runs uncompiled with the arguments {given or 'of this call'}")
            return self.eager(*args, **kwargs)
        if any(tensor.device.type != "cpu" for tensor in call.tensors):
            self.tell(f"the {self.target.name} runs uncompiled where it has been moved to; call compile() again")
            return self.eager(*args, **kwargs)
        program = self._program(call)
        if program is not None:
            if self.planned is not None:
                self.planned.spend()
            return call.result(program(list(call.tensors)))
        start = time.perf_counter()
        out = self.eager(*args, **kwargs)
        if self.planned is not None:
            self.planned.add(call.signature, time.perf_counter() - start)
        return out

    def _program(self, call: FlatCall) -> Function | None:
        """The program for a call; None to run the network as it is."""
        programs, signature = self.programs, call.signature
        if self.watch is not None and self.watch() == programs.weights:
            with suppress(KeyError):  # another thread may give a program up between a look and a read
                return programs.loaded[signature]
        with self.lock:
            if self.watch is None or self.watch() != self.programs.weights:
                self.watch = watch_weights(self.target.network)
                self.programs = Programs(self.watch())
            programs = self.programs
            if signature not in programs.loaded:
                found = self._find(call, programs)
                if found is None and self.planned is not None and not self.planned.is_settled(signature):
                    return None  # until it is known how long a call takes
                if len(programs.loaded) == MOST_PROGRAMS:
                    programs.loaded.pop(next(iter(programs.loaded)))
                programs.loaded[signature] = found
            return programs.loaded[signature]

    def _find(self, call: FlatCall, programs: Programs) -> Function | None:
        """The program from disk, or compiled now, as it is planned."""
        network, name = self.target.network, self.target.name
        size = sum(parameter.numel() for parameter in network.parameters())
        shape = "x".join(map(str, call.tensors[0].shape))
        try:
            programs.digest = programs.digest or weights_digest(network)
            facts = {**self.facts, "weights": programs.digest, "call": str(call.signature), **environment()}
            artefact = Artefact(facts)
            found = artefact.load()
            if found is not None:
                return found
            if self.planned is not None and not self.planned.repays(call.signature, size):
                return None
            with elapsed(f"compiling the {name} for {shape}", self.shown):
                return artefact.build(call)
        except Exception as error:
            reason = str(error) if isinstance(error, LatentDiffError) else one_line(error)
            if self.planned is None:
                if isinstance(error, LatentDiffError):
                    raise
                raise ConfigError(f"the {name} can't be compiled ({reason}); call uncompile()") from error
            self.tell(f"the {name} runs uncompiled: {reason}")
            return None
