"""The inventory of a checkpoint: every tensor is used, left out for a reason, or an error."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from latentdiff.conversion.plan import COND_STAGE_PREFIX, FIRST_STAGE_PREFIX, UNET_PREFIX, ComponentPlan, ConversionPlan
from latentdiff.conversion.tensor_map import Shapes
from latentdiff.errors import CheckpointError

BUFFERS = frozenset({
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
    "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
    "lvlb_weights", "logvar", "scale_factor",
})  # fmt: skip
"""The tensors that the original stores beside the networks: the noise schedule and the latent scale."""

EMA_PREFIX = "model_ema."
TRAINING_ONLY = re.compile(r"^(first_stage_model\.|cond_stage_model\.)?loss\.")
MAX_SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Inventory:
    """The use of a checkpoint's tensors.

    Attributes:
        sources: Names by which a component looks for its tensors, with the names in the file where these differ.
        buffers: The names of the noise schedule's tensors and of the scale that the file has.
        training: The names of tensors that only training needs, such as a discriminator's.
        notes: Sentences that say what was left out and why.
    """

    sources: dict[str, str]
    buffers: frozenset[str]
    training: list[str]
    notes: list[str] = field(default_factory=list)


def account_for(plan: ConversionPlan, shapes: Shapes, *, ema: bool) -> Inventory:
    """Compare the tensors of a checkpoint with its plan.

    Args:
        plan: The plan, which says what tensors there should be.
        shapes: The shapes of the tensors that there are.
        ema: Whether to use the averaged weights of the UNet if there are any.

    Raises:
        CheckpointError: If tensors are missing, unexpected or misshaped; the message names the component and the first
            five.
    """
    notes: list[str] = []
    left = set(shapes)
    buffers = frozenset(left & BUFFERS) if "unet" in plan.parts else frozenset()
    training = sorted(key for key in left if TRAINING_ONLY.match(key))
    left -= buffers | set(training)
    if training:
        notes.append(f"{len(training)} tensors that only training needs were left out ({training[0]}, ...).")
    sources = ema_sources(plan, shapes) if ema else {}
    averaged = {key for key in left if key.startswith(EMA_PREFIX)}
    left -= averaged
    if averaged and not ema:
        _check_raw(left)
        notes.append("The averaged weights of the UNet were left out.")
    elif sources:
        notes.append("The UNet has the averaged weights; its raw weights were left out.")
        left = {key for key in left if not key.startswith(UNET_PREFIX)}
    elif ema and "unet" in plan.parts:
        notes.append("The checkpoint has no averaged weights; the UNet has the raw ones.")
    for part in plan.parts.values():
        sources |= shortened_sources(part, shapes)
    for name, part in plan.parts.items():
        starts = tuple(part.prefix + start for start in part.network.dropped)
        if part.network.optional:
            starts += tuple(start.replace(part.network.optional, "", 1) for start in starts)
        dropped = {key for key in left if key.startswith(starts)}
        if dropped:
            notes.append(
                f"{name}: {len(dropped)} tensors that sampling doesn't need were left out ({min(dropped)}, ...)."
            )
        left -= dropped
    if plan.shared_first_stage:
        copies = {key for key in left if key.startswith(COND_STAGE_PREFIX)}
        check_copies(shapes, copies)
        left -= copies
        if copies:
            notes.append("The first stage is stored a second time as its own conditioner; one of them was left out.")
    for name, part in plan.parts.items():
        needed = {sources.get(key, key): shape for key, shape in part.map.original_shapes.items()}
        own = {key for key in left if key.startswith(part.prefix)}
        compare(name, needed, shapes, own - set(needed))
        left -= own
    if left:
        compare("the checkpoint", {}, shapes, left)
    return Inventory(sources, buffers, training, notes)


def _check_raw(names: set[str]) -> None:
    if not any(name.startswith(UNET_PREFIX) for name in names):
        raise CheckpointError("the checkpoint has the averaged weights of the UNet only; take them, with ema=True")


def ema_sources(plan: ConversionPlan, shapes: Shapes) -> dict[str, str]:
    """The names of the UNet's tensors, with those of their averages; empty if the checkpoint has no averages.

    The name of an average is that of the tensor without its dots. It can't be read backwards, so it is made from ours.
    """
    if "unet" not in plan.parts:
        return {}
    keys = plan.parts["unet"].map.original_shapes
    twins = {key: EMA_PREFIX + key.removeprefix("model.").replace(".", "") for key in keys}
    return twins if any(twin in shapes for twin in twins.values()) else {}


def shortened_sources(part: ComponentPlan, shapes: Shapes) -> dict[str, str]:
    """The names of a component's tensors, with those in the file where these lack the optional piece."""
    if not part.network.optional:
        return {}
    short = {key: key.replace(part.network.optional, "", 1) for key in part.map.original_shapes}
    return {key: name for key, name in short.items() if key not in shapes and name in shapes}


def check_copies(shapes: Shapes, copies: set[str]) -> None:
    """CheckpointError unless the tensors `copies` of the conditioning stage are those of the first stage."""
    for copy in copies:
        first = FIRST_STAGE_PREFIX + copy.removeprefix(COND_STAGE_PREFIX)
        if shapes.get(first) != shapes[copy]:
            raise CheckpointError(f"{copy} is not a copy of {first}, though the config says so; give the right config")


def compare(name: str, needed: Shapes, shapes: Shapes, extra: set[str]) -> None:
    """Compare the tensors that a component needs with those that there are.

    Args:
        name: The name of the component.
        needed: The shapes of the tensors that it needs.
        shapes: The shapes of all tensors that there are.
        extra: The names of those that it doesn't need, though they are in its place.

    Raises:
        CheckpointError: If tensors are missing, misshaped or unexpected; the message has the first five of each.
    """
    missing = [key for key in needed if key not in shapes]
    misshaped = [
        f"{key} {list(shapes[key])}, not {list(shape)}"
        for key, shape in needed.items()
        if key in shapes and tuple(shapes[key]) != shape
    ]
    groups = (("missing", missing), ("misshaped", misshaped), ("unexpected", sorted(extra)))
    found = [f"{len(keys)} {what} ({', '.join(keys[:MAX_SHOWN])})" for what, keys in groups if keys]
    if found:
        raise CheckpointError(f"{name} does not fit its config: {'; '.join(found)}; give the config of this checkpoint")
