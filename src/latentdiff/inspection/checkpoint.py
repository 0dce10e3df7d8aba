"""Facts about an original checkpoint, from its names, shapes and dtypes; no tensor is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from latentdiff.errors import ConfigError
from latentdiff.io.file_kinds import CHECKPOINT_SUFFIXES
from latentdiff.tasks import TASKS
from latentdiff.types import JSON

if TYPE_CHECKING:
    from latentdiff.conversion.plan import ConversionPlan


def is_checkpoint(target: str) -> bool:
    """Whether it is a file, whatever it holds, or leads nowhere but is named as checkpoints are."""
    path = Path(target)
    if not path.exists():
        return path.suffix.lower() in CHECKPOINT_SUFFIXES and not target.startswith("builtin:")
    return not path.is_dir()


def describe_checkpoint(target: str) -> JSON:
    """Family, task, components, precision, averaged weights, and the forms to which it can be converted.

    Raises:
        CheckpointError: If the file is damaged, unsafe, or holds no latent diffusion model.
    """
    from latentdiff.conversion.foreign import refuse_foreign
    from latentdiff.conversion.inventory import EMA_PREFIX, account_for
    from latentdiff.conversion.plan import make_conversion_plan
    from latentdiff.conversion.zoo import recognise
    from latentdiff.io.tensor_files import open_tensors

    file = open_tensors(target)
    infos = {key: file.info(key) for key in file.keys()}  # noqa: SIM118
    shapes = {key: info.shape for key, info in infos.items()}
    refuse_foreign(target, shapes)
    facts: JSON = {
        "tensors": len(infos),
        "dtype": ", ".join(sorted({str(info.dtype).removeprefix("torch.") for info in infos.values()})),
        "ema": any(key.startswith(EMA_PREFIX) for key in infos),
        "global_step": file.metadata.get("global_step"),
        "bytes": Path(target).stat().st_size,
    }
    try:
        name, node = recognise(shapes)
    except ConfigError as error:
        total = sum(math.prod(shape) for shape in shapes.values())
        return {"family": None, **facts, "parameters": total, "note": str(error)}
    plan = make_conversion_plan(node)
    stock = account_for(plan, shapes, ema=True)
    components = {
        part: sum(math.prod(shape) for shape in plan.parts[part].map.shapes.values()) for part in sorted(plan.parts)
    }
    return {
        "family": name,
        "task": plan.task or "first stage",
        **facts,
        "parameters": sum(components.values()),
        "components": {part: f"{count:,} parameters" for part, count in components.items()},
        "training_tensors": len(stock.training),
        "converts_to": _forms(plan),
    }


def _forms(plan: ConversionPlan) -> list[str]:
    """The forms that `latentdiff convert --to` can make of it."""
    from latentdiff.conversion.to_diffusers import refusal

    forms = ["original", *(["latentdiff"] if plan.task is None or plan.task in TASKS else [])]
    reason = refusal(plan.task, {name: part.model for name, part in plan.parts.items()})
    return [*forms, *([] if reason else ["diffusers"])]
