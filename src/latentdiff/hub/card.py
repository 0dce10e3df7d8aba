"""The model card, README.md: metadata for the hub, what the model is made of, and how to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from latentdiff.tasks import TaskSpec, task_of_pipeline

TEMPLATE = Path(__file__).with_name("card_template.md")
PAPER = "[arXiv:2112.10752](https://arxiv.org/abs/2112.10752)"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class HasComponents(Protocol):
    """A pipeline, as far as a card describes it."""

    @property
    def components(self) -> Mapping[str, object]:
        """The components by their names."""
        ...


def model_card(
    pipeline: HasComponents,
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
        pipeline: The pipeline.
        repo_id: Where it lies on the hub; without, the snippet loads the folder that the card lies in.
        subfolder: Where in the repository it lies.
        license: An identifier of the hub, such as "apache-2.0".
        dataset: What it was trained on: the id of a data set on the hub ("owner/name"), or any text.
        metrics: Names to values, such as `{"fid": 12.3}`, measured with images of `dataset`.
        description: A paragraph about the model.
        prompt: What the snippet of a text-to-image model asks for.

    Returns:
        The card; `save_pretrained` and `push_to_hub` take it as `card`.
    """
    class_name = type(pipeline).__name__
    spec = task_of_pipeline(class_name)
    title = repo_id.split("/")[-1] if repo_id else class_name
    metrics = metrics or {}
    datasets = [dataset] if dataset and HUB_ID.fullmatch(dataset) else []  # other text is for people only
    results = [
        # The hub's metadata has each metric together with a task and a data set.
        EvalResult(spec.hub_tag, dataset_type=name, dataset_name=name, metric_type=metric, metric_value=float(value))
        for name in datasets
        for metric, value in metrics.items()
        if spec
    ]
    data = ModelCardData(
        library_name="latentdiff",
        pipeline_tag=spec.hub_tag if spec else None,
        license=license.lower() if license else None,
        datasets=datasets or None,
        metrics=list(metrics) or None,
        tags=["latentdiff", "latent-diffusion", "image-generation"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    summary = spec.summary if spec else "makes images"
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        description=description or f"A latent diffusion model ({PAPER}) that {summary}.",
        license=license,
        dataset=dataset,
        place=_place(repo_id, subfolder),
        call=_call(spec, prompt),
        metrics=metrics,
        components=_components(pipeline),
    )


def _place(repo_id: str | None, subfolder: str | None) -> str:
    """The arguments by which the snippet loads the model."""
    if repo_id and subfolder:
        return f"{_quoted(repo_id)}, subfolder={_quoted(subfolder)}"
    return _quoted(repo_id or ".")


def _call(spec: TaskSpec | None, prompt: str) -> str:
    """The line of the snippet that makes an image, or shows how to where that takes more than a line."""
    if spec is None or spec.call is None:
        return "help(pipe.__call__)"
    return f'{spec.call.format(prompt=_quoted(prompt))}.images[0].save("image.png")'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _components(pipeline: HasComponents) -> list[tuple[str, str, str]]:
    """The names of the components, their classes, and the numbers of their parameters if they have any."""
    rows = []
    for name, part in pipeline.components.items():
        count = f"{sum(p.numel() for p in part.parameters()):,}" if isinstance(part, torch.nn.Module) else ""
        rows.append((name, type(part).__name__, count))
    return rows
