"""What diffusers' users read and set of a call while it runs, mostly in a callback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch

from latentdiff.errors import InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.plus_plus import CFGPlusPlus
from latentdiff.pipelines.options import SamplingOptions
from latentdiff.pipelines.outputs import OutputT
from latentdiff.sampling import Callback, Guidance
from latentdiff.tasks import CLASS_GUIDANCE_SCALE, TEXT_GUIDANCE_SCALE


@dataclass
class RunState:
    """The state of one call.

    Attributes:
        interrupt: Whether the run ends after this step.
        guidance_scale: The strength of classifier-free guidance, 1 without guidance.
        num_timesteps: The number of network calls along the run.
    """

    interrupt: bool = False
    guidance_scale: float = 1.0
    num_timesteps: int = 0


# The states of the calls that this thread, or this task, is in, by the pipeline: calls in other threads have their own.
_RUNS: ContextVar[Mapping[int, RunState]] = ContextVar("_RUNS", default={})  # noqa: B039 (it is never changed)


def strength_of(guidance: Sequence[Guidance]) -> float:
    """The strength of the classifier-free guidance among guidance objects, 1 without."""
    return next((guide.scale for guide in guidance if isinstance(guide, ClassifierFreeGuidance)), 1.0)


def default_guidance_scale(components: Mapping[str, Any]) -> float | None:
    """The scale of classifier-free guidance where none is given, by a pipeline's components.

    Args:
        components: As `pipe.components` has them.

    Returns:
        None for a model that takes no condition that can be dropped.
    """
    if components.get("text_encoder") is not None:
        return TEXT_GUIDANCE_SCALE
    if components.get("class_embedder") is not None:
        return 1.0 if components["class_embedder"].config.null_class is None else CLASS_GUIDANCE_SCALE
    return 1.0 if components.get("layout_encoder") is not None else None


class RunStateMixin:
    """Mixin of all pipelines with the attributes of diffusers' pipelines that describe a call.

    Within a call, which means in its callbacks, they are those of that call; outside of one, those of the latest. A
    callback may set two of them, as in diffusers: `pipe._interrupt = True` ends the run after this step, and
    `pipe._guidance_scale = 3.0` changes the strength of classifier-free guidance from the next step on, where 1 and
    less mean the conditional prediction alone. (The scale of CFG++, which lies between 0 and 1, is as it is set.)
    """

    @property
    def _run_state(self) -> RunState:
        latest: RunState = self.__dict__.setdefault("_latest_run", RunState())
        return _RUNS.get().get(id(self), latest)

    @property
    def _interrupt(self) -> bool:
        return self._run_state.interrupt

    @_interrupt.setter
    def _interrupt(self, value: bool) -> None:
        self._run_state.interrupt = value

    @property
    def _guidance_scale(self) -> float:
        return self._run_state.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, value: float) -> None:
        self._run_state.guidance_scale = value

    @property
    def interrupt(self) -> bool:
        """Whether a callback has ended the run."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float:
        """The strength of classifier-free guidance, 1 without guidance."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether there is classifier-free guidance."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """The number of network calls along the run, which is the number of steps of a first-order solver."""
        return self._run_state.num_timesteps

    @contextmanager
    def _running(self, guidance: Sequence[Guidance], num_timesteps: int) -> Iterator[list[Guidance]]:
        """Give a call its state for as long as it runs.

        Args:
            guidance: The guidance objects of the call.
            num_timesteps: The number of network calls along the run.

        Returns:
            The guidance, with a copy of the classifier-free one in its place, whose scale may change.
        """
        ours = [replace(g) if isinstance(g, ClassifierFreeGuidance) else g for g in guidance]
        state = RunState(guidance_scale=strength_of(ours), num_timesteps=num_timesteps)
        self.__dict__["_latest_run"] = state
        token = _RUNS.set({**_RUNS.get(), id(self): state})
        try:
            yield ours
        finally:
            _RUNS.reset(token)

    def _callbacks(
        self, options: SamplingOptions[OutputT], guidance: Sequence[Guidance]
    ) -> tuple[Callable[[torch.Tensor], object] | None, Callback | None]:
        """What the loop calls for the user's callback: one to observe x0, if that is asked for, and the callback."""
        call = options.callback_on_step_end
        if call is None:
            return None, None
        inputs: Sequence[str] = getattr(call, "tensor_inputs", options.callback_on_step_end_tensor_inputs)
        tensors: dict[str, torch.Tensor] = {}

        def observe_x0(x0: torch.Tensor) -> None:
            tensors["pred_original_sample"] = x0

        def callback(step: int, timestep: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
            tensors["latents"] = current
            shown = {name: tensors[name] for name in inputs}
            before = self._guidance_scale
            returned = call(self, step, timestep, shown)
            if returned is not None and not hasattr(returned, "get"):
                raise InputError(
                    f"callback_on_step_end returned {type(returned).__name__}; return the dict of tensors to go on "
                    "with, or None"
                )
            unknown = {*(returned or ())} - {*shown, "latents"}
            if unknown:
                raise InputError(
                    f"callback_on_step_end returned {', '.join(sorted(map(str, unknown)))}, which a run does not take; "
                    f"return of {', '.join(sorted({*shown, 'latents'}))} those that are to change"
                )
            if self._guidance_scale != before:
                self._change_scale(guidance)
            latents = (shown if returned is None else returned).get("latents", current)
            if not isinstance(latents, torch.Tensor):
                raise InputError(f"callback_on_step_end returned {type(latents).__name__} as latents; return a tensor")
            return latents

        return observe_x0 if "pred_original_sample" in inputs else None, callback

    def _change_scale(self, guidance: Sequence[Guidance]) -> None:
        """Give the run's classifier-free guidance the scale that a callback has set."""
        changed = [g for g in guidance if isinstance(g, ClassifierFreeGuidance)]
        if not changed:
            raise InputError(
                "_guidance_scale was set in a run without classifier-free guidance; call with guidance_scale above 1"
            )
        lowest = -math.inf if any(isinstance(g, CFGPlusPlus) for g in guidance) else 1.0
        for guide in changed:
            guide.scale = max(self._guidance_scale, lowest)
