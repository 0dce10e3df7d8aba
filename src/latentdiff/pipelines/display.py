"""What a notebook shows of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import torch


def pipeline_html(name: str, components: Mapping[str, object]) -> str:
    """A table of a pipeline's components: what they are, how large, of which data type, and where.

    Args:
        name: The class of the pipeline, and the model's name.
        components: The components by name.
    """
    rows = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (part, *_cells(component))) + "</tr>"
        for part, component in components.items()
    ]
    head = "<tr>" + "".join(f"<th>{title}</th>" for title in ("component", "class", "parameters", "dtype", "device"))
    return f"<table><caption>{escape(name)}</caption>{head}</tr>{''.join(rows)}</table>"


def _cells(component: object) -> tuple[str, str, str, str]:
    kind = "none" if component is None else type(component).__name__
    if not isinstance(component, torch.nn.Module):
        return kind, "", "", ""
    parameters = list(component.parameters())
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in parameters})
    devices = sorted({str(p.device) for p in parameters})
    return kind, f"{sum(p.numel() for p in parameters):,}", ", ".join(dtypes), ", ".join(devices)
