"""The README.md of a model: metadata for the hub, what the model is made of, and how to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData

from latentdiff.tasks import TaskSpec, task_of_pipeline


def model_card(
    pipeline: Any,
    *,
    repo_id: str | None = None,
    subfolder: str | None = None,
    license: str | None = None,
    dataset: str | None = None,
    metrics: Mapping[str, float] | None = None,
    description: str | None = None,
    prompt: str = "a cat",
) -> ModelCard:
    """Describe a pipeline.

    Args:
        pipeline: What is described.
        repo_id: Where it lies on the hub; without, the snippet loads the folder that the card lies in.
        subfolder: Where in the repository.
        license: An identifier of the hub, such as "apache-2.0".
        dataset: What it was trained on: an id of the hub, or any text.
        metrics: Names to values, such as `{"fid": 12.3}`.
        description: A paragraph about the model.
        prompt: What the snippet of a text-to-image model asks for.

    Returns:
        The card; `save_pretrained` and `push_to_hub` take it as `card`.
    """
    name = type(pipeline).__name__
    spec = task_of_pipeline(name)
    data = ModelCardData(
        library_name="latentdiff",
        pipeline_tag=spec.hub_tag if spec else None,
        license=None if license is None else license.lower(),
        # The hub links data sets by id; other text is for people only.
        datasets=[dataset] if dataset and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", dataset) else None,
        metrics=list(metrics) if metrics else None,
        tags=["latentdiff", "latent-diffusion", "image-generation"],
    )
    summary = spec.summary if spec else "makes images"
    title = repo_id.split("/")[-1] if repo_id else name
    paragraphs = [
        f"# {title}",
        description
        or f"A latent diffusion model ([arXiv:2112.10752](https://arxiv.org/abs/2112.10752)) that {summary}.",
        f"- **Licence:** {license or 'not stated'}\n- **Trained on:** {dataset or 'not stated'}",
        f"## Use\n\n```python\n{_snippet(spec, repo_id, subfolder, prompt)}\n```",
        _table("Metrics", ("metric", "value"), [(key, f"{value:g}") for key, value in (metrics or {}).items()]),
        _table("Components", ("component", "class", "parameters"), _components(pipeline)),
    ]
    body = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _snippet(spec: TaskSpec | None, repo_id: str | None, subfolder: str | None, prompt: str) -> str:
    place = _quoted(repo_id or ".") + (f", subfolder={_quoted(subfolder)}" if repo_id and subfolder else "")
    lines = ["from latentdiff import DiffusionPipeline", "", f"pipe = DiffusionPipeline.from_pretrained({place})"]
    if spec and spec.call:
        lines.append(f'{spec.call.format(prompt=_quoted(prompt))}.images[0].save("image.png")')
    else:
        lines.append("help(pipe.__call__)")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _components(pipeline: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, part in pipeline.components.items():
        count = f"{sum(p.numel() for p in part.parameters()):,}" if isinstance(part, torch.nn.Module) else ""
        rows.append((name, f"`{type(part).__name__}`", count))
    return rows


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [" | ".join(row) for row in [columns, ("---",) * len(columns), *rows]]
    return f"## {title}\n\n" + "\n".join(f"| {line} |" for line in lines)
