"""What belongs to one call of a pipeline: its scheduler's state, and its turn where components move between devices."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

from latentdiff.compat import OFFLOAD_HOOK
from latentdiff.schedulers.base import TableScheduler
from latentdiff.types import Scheduler

# What no run of an own solver changes in place: to copy its long lists would take as long as to plan the run.
UNCHANGED = frozenset({"schedule", "grid", "betas", "alphas_cumprod", "timesteps", "sigmas"}) | frozenset(
    {"_training_levels", "_run_levels", "_calls", "_host_timesteps", "_tables", "_timesteps_of_call"}
)

_RUNNING: ContextVar[Mapping[int, Scheduler]] = ContextVar("_RUNNING", default={})  # noqa: B039 (it is never changed)
_OFFLOADED, _COPYING = threading.RLock(), threading.Lock()


def copy_for_call(scheduler: Scheduler) -> Scheduler:
    """Make a scheduler with a state of its own, whose steps and timesteps leave the other as it is.

    The configuration is shared, as is what can't be copied, such as a lock.

    Args:
        scheduler: A scheduler of this package, of diffusers, or of a user.
    """
    made = copy.copy(scheduler)
    config = scheduler.config
    memo: dict[int, object] = {id(scheduler): made, id(config): config}
    shared = UNCHANGED if isinstance(scheduler, TableScheduler) else frozenset[str]()
    for name, value in vars(scheduler).items():
        if name not in shared:
            try:
                vars(made)[name] = copy.deepcopy(value, memo)
            except Exception:  # whatever a class raises that can't be copied
                continue
    return made


class CallScheduler:
    """The attribute `scheduler` of a pipeline: for the callbacks of a call it is the call's own, else the pipeline's.

    A scheduler that is set while a call runs is the pipeline's from then on. The call goes on with its own.
    """

    def __get__(self, pipeline: object, owner: type) -> Scheduler:
        """The scheduler as this thread and this call see it."""
        if pipeline is None:
            return self  # type: ignore[return-value]  # the class's attribute, which only introspection asks for
        own = _RUNNING.get().get(id(pipeline))
        return of_pipeline(pipeline) if own is None else own

    def __set__(self, pipeline: object, scheduler: Scheduler) -> None:
        """Set the pipeline's scheduler."""
        running = _RUNNING.get()
        if id(pipeline) in running:
            _RUNNING.set({number: own for number, own in running.items() if number != id(pipeline)})
        vars(pipeline)["scheduler"] = scheduler


def of_pipeline(pipeline: object) -> Scheduler:
    """The scheduler that a pipeline's calls copy."""
    try:
        scheduler: Scheduler = vars(pipeline)["scheduler"]
    except KeyError:
        raise AttributeError(f"{type(pipeline).__name__} has no scheduler yet") from None
    return scheduler


@contextmanager
def own_scheduler(pipeline: object, plan: Callable[[Scheduler], None]) -> Iterator[Scheduler]:
    """Make a call's own scheduler, and let `pipeline.scheduler` be it for what runs inside of the call.

    Args:
        pipeline: The pipeline.
        plan: Sets the timesteps of the call's scheduler.
    """
    shared = of_pipeline(pipeline)
    with _COPYING:
        own = copy_for_call(shared)
    plan(own)
    _show(own, shared)
    token = _RUNNING.set({**_RUNNING.get(), id(pipeline): own})
    try:
        yield own
    finally:
        _RUNNING.reset(token)


def _show(planned: Scheduler, shared: Scheduler) -> None:
    """Let the pipeline's scheduler have the timesteps of the latest call, as those who look at it afterwards expect.

    Timesteps that a user has set there stay, as he may be in a loop of his own.
    """
    with _COPYING:
        state = vars(shared)
        if state.get("num_inference_steps") is None or state.get("timesteps") is state.get("_timesteps_of_call"):
            state.update(vars(copy_for_call(planned)))
            state["_timesteps_of_call"] = state.get("timesteps")


def turn(pipeline: object) -> AbstractContextManager[object]:
    """Wait until no other thread makes a call whose components are offloaded, if those of `pipeline` are.

    Offloaded components move to the accelerator and away while a call runs, so a second one would find its networks on
    another device. Pipelines may share them, so there is one turn for all.
    """
    parts = (part for part in vars(pipeline).values() if isinstance(part, torch.nn.Module))
    return _OFFLOADED if any(hasattr(part, OFFLOAD_HOOK) for part in parts) else nullcontext()
