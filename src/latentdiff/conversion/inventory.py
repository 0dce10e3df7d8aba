"""Every tensor of a checkpoint is accounted for: used, left out for a reason, or an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from latentdiff.conversion.plan import COND_STAGE, FIRST_STAGE, UNET, ConversionPlan
from latentdiff.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

BUFFERS = frozenset(
    (
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        *("lvlb_weights", "logvar", "scale_factor"),
    )
)
"""What the original stores beside the networks: the noise schedule, and the latent scale."""

EMA = "model_ema."
TRAINING = re.compile(r"^(first_stage_model\.|cond_stage_model\.)?loss\.")
SHOWN = 5


@dataclass(frozen=True)
class Inventory:
    """What is where.

    Attributes:
        sources: Names under which a part looks for a tensor, to names in the file, where the two differ.
        buffers: Names of the schedule's tensors that the file has.
        training: Names of tensors that only training needs, such as a discriminator's.
        notes: What was left out and why.
    """

    sources: dict[str, str]
    buffers: frozenset[str]
    training: list[str]
    notes: list[str] = field(default_factory=list)


def account_for(plan: ConversionPlan, shapes: Shapes, *, ema: bool) -> Inventory:
    """Compare a checkpoint with its plan.

    Args:
        plan: What should be there.
        shapes: What is there.
        ema: Whether the UNet's averaged weights are wanted.

    Raises:
        CheckpointError: If tensors are missing, left over or misshaped; it names the component and the first five.
    """
    notes: list[str] = []
    left = set(shapes)
    buffers = frozenset(left & BUFFERS) if "unet" in plan.parts else frozenset()
    training = sorted(key for key in left if TRAINING.match(key))
    left -= buffers | set(training)
    if training:
        notes.append(f"{len(training)} tensors that only training needs were left out ({training[0]}, ...).")
    sources = ema_sources(plan, shapes) if ema else {}
    averaged = {key for key in left if key.startswith(EMA)}
    left -= averaged
    if averaged and not ema:
        notes.append("The averaged weights of the UNet were left out.")
    elif sources:
        notes.append("The UNet has the averaged weights; its raw weights were left out.")
        left = {key for key in left if not key.startswith(UNET)}
    elif ema and "unet" in plan.parts:
        notes.append("The checkpoint has no averaged weights; the UNet has the raw ones.")
    for name, part in plan.parts.items():
        dropped = {key for key in left if any(key.startswith(part.place + start) for start in part.network.dropped)}
        if dropped:
            notes.append(
                f"{name}: {len(dropped)} tensors that sampling doesn't need were left out ({min(dropped)}, ...)."
            )
        left -= dropped
    if plan.shared_first_stage:
        twice = {key for key in left if key.startswith(COND_STAGE)}
        check_twins(shapes, twice)
        left -= twice
        if twice:
            notes.append("The first stage is stored a second time as its own conditioner; one of them was left out.")
    for name, part in plan.parts.items():
        needed = {sources.get(key, key): shape for key, shape in part.map.original_shapes.items()}
        below = {key for key in left if key.startswith(part.place)} if part.place else left
        compare(name, needed, shapes, below - set(needed))
        left -= below
    if left:
        compare("the checkpoint", {}, shapes, left)
    return Inventory(sources, buffers, training, notes)


def ema_sources(plan: ConversionPlan, shapes: Shapes) -> dict[str, str]:
    """The UNet's tensors to their averaged twins, whose names are those of the module with all dots removed.

    Empty where the checkpoint has none. Names can't be read backwards, so they are made of the UNet's own.
    """
    if "unet" not in plan.parts:
        return {}
    keys = plan.parts["unet"].map.original_shapes
    twins = {key: EMA + key.removeprefix("model.").replace(".", "") for key in keys}
    return twins if any(twin in shapes for twin in twins.values()) else {}


def check_twins(shapes: Shapes, twice: set[str]) -> None:
    """CheckpointError unless what is stored twice has one set of names and shapes."""
    twins = {FIRST_STAGE + key.removeprefix(COND_STAGE): key for key in twice}
    for first, second in twins.items():
        if shapes.get(first) != shapes[second]:
            raise CheckpointError(f"{second} is no copy of {first}, though the config says so; give the right config")


def compare(name: str, needed: Shapes, shapes: Shapes, extra: set[str]) -> None:
    """CheckpointError that names the first five missing, misshaped and unexpected tensors, if there are any."""
    missing = [key for key in needed if key not in shapes]
    misshaped = [
        f"{key} {list(shapes[key])}, not {list(shape)}"
        for key, shape in needed.items()
        if key in shapes and tuple(shapes[key]) != shape
    ]
    groups = (("missing", missing), ("misshaped", misshaped), ("unexpected", sorted(extra)))
    found = [f"{len(keys)} {what} ({', '.join(keys[:SHOWN])})" for what, keys in groups if keys]
    if found:
        raise CheckpointError(f"{name} does not fit its config: {'; '.join(found)}; give the config of this checkpoint")
