"""The model card, README.md: metadata for the hub, what the model is made of, and how to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.tasks import TaskSpec, task_of_pipeline

TEMPLATE = Path(__file__).with_name("card_template.md")
PAPER = "[arXiv:2112.10752](https://arxiv.org/abs/2112.10752)"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
GALLERY = "gallery"  # the folder of a card's pictures, beside it


class PicturedCard(ModelCard):  # type: ignore[misc]
    """A model card with pictures, which are saved, and so published, along with it.

    Attributes:
        pictures: The pictures by their places relative to the card, as its text names them.
    """

    def __init__(self, content: str, pictures: Mapping[str, Image.Image]) -> None:
        super().__init__(content)
        self.pictures = dict(pictures)

    def save(self, filepath: Path | str) -> None:
        """Write the card, and the pictures to their places beside it."""
        super().save(filepath)
        for place, picture in self.pictures.items():
            path = Path(filepath).parent / place
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)

    def with_section(self, section: str, pictures: Mapping[str, Image.Image] | None = None) -> PicturedCard:
        """The card with a section at its end, and the pictures that it names."""
        return PicturedCard(f"{self}\n{section}", {**self.pictures, **(pictures or {})})


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
    gallery: Mapping[str, Image.Image] | None = None,
) -> PicturedCard:
    """Describe a pipeline.

    Args:
        pipeline: The pipeline.
        repo_id: Where it lies on the hub; without, the snippet loads the folder that the card lies in.
        subfolder: Where in the repository it lies.
        license: An identifier of the hub, such as "apache-2.0".
        dataset: What it was trained on: the id of a data set on the hub ("owner/name"), or any text.
        metrics: Names to values, such as `{"fid": 12.3}`, measured with images of `dataset`.
        description: A paragraph about the model.
        prompt: What the snippet of a text-to-image model asks for, and the hub's page where there is no gallery.
        gallery: Captions to images that the model made; of a text-to-image model the prompts, which the hub's page
            offers to be tried.

    Returns:
        The card; `save_pretrained` and `push_to_hub` take it as `card`, and write its pictures: `gallery/1.png`, ...

    Raises:
        InputError: If the gallery has anything but Pillow images under captions.
    """
    class_name = type(pipeline).__name__
    spec = task_of_pipeline(class_name)
    title = repo_id.split("/")[-1] if repo_id else class_name
    metrics = metrics or {}
    pictures = _pictures(gallery or {})
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
        widget=_widget(spec, pictures, prompt),
    )
    summary = spec.summary if spec else "makes images"
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        description=description or f"A latent diffusion model ({PAPER}) that {summary}.",
        license=license,
        dataset=dataset,
        place=_place(repo_id, subfolder),
        call=_call(spec, prompt),
        gallery={place: _cell(caption) for place, (caption, _) in pictures.items()},
        metrics=metrics,
        components=_components(pipeline),
    )
    return PicturedCard(str(card), {place: image for place, (_, image) in pictures.items()})


def _pictures(gallery: Mapping[str, Image.Image]) -> dict[str, tuple[str, Image.Image]]:
    """The places of a gallery's pictures to their captions and images."""
    for caption, image in gallery.items():
        if not isinstance(caption, str) or not isinstance(image, Image.Image):
            raise InputError(
                f"gallery has {type(image).__name__} under {caption!r}; give captions and Pillow images, such as "
                "{'a red apple': image}"
            )
    return {f"{GALLERY}/{number}.png": pair for number, pair in enumerate(gallery.items(), 1)}


def _widget(
    spec: TaskSpec | None, pictures: Mapping[str, tuple[str, Image.Image]], prompt: str
) -> list[dict[str, object]] | None:
    """What the hub's page of the model shows: texts to try, and what came of them."""
    shown: list[dict[str, object]] = [
        {"text": caption, "output": {"url": place}} for place, (caption, _) in pictures.items()
    ]
    if not shown and spec is not None and spec.hub_tag == "text-to-image":
        return [{"text": prompt}]
    return shown or None


def _cell(text: str) -> str:
    """A text as a cell of a table in Markdown: one line, and no mark in it."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


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
