"""What the page's scripts are told, as JSON: what to draw on, how far an image is, and the image."""

from __future__ import annotations

import base64
import io

from PIL import Image

from latentdiff.demo.drawing import as_png
from latentdiff.demo.making import Made
from latentdiff.demo.models import Model
from latentdiff.demo.texts import say
from latentdiff.demo.worker import Progress
from latentdiff.types import JSON

SIDES = 1, 2, 4  # times the model's own, of a picture that is drawn on


def canvas_setup(model: Model) -> JSON:
    """What the canvas of a model is."""
    width, height = model.size
    return {
        "kind": model.controls.canvas,
        "width": width,
        "height": height,
        "sides": [model.input_side * times for times in SIDES],
        "classes": [{"name": str(paint.label), "colour": list(paint.colour)} for paint in model.classes],
    }


def drawing_again(drawing: JSON, photo: bytes | None) -> JSON:
    """A drawing that the canvas has sent, for it to show again.

    Args:
        drawing: It.
        photo: The photo below it, a PNG; None if there is none.
    """
    return {**drawing, "picture": None if photo is None else base64_of(photo)}


def photo_taken(name: str, png: bytes) -> JSON:
    """A photo that the server keeps under a name."""
    with Image.open(io.BytesIO(png)) as opened:
        return {"photo": name, "width": opened.width, "height": opened.height, "picture": base64_of(png)}


def progress(event: Progress, preview: Image.Image | None) -> JSON:
    """How far an image is, and what it is becoming."""
    shown = None if preview is None else base64_of(as_png(preview))
    return {
        "state": "running",
        "text": say("running", step=event.step, of=event.of),
        "step": event.step,
        "of": event.of,
        "preview": shown,
    }


def failure(reason: str) -> JSON:
    """Why there is no image."""
    return {"state": "failed", "text": reason, "fault": True}


def result(made: Made, query: str) -> JSON:
    """An image, with what can be downloaded.

    Args:
        made: It.
        query: The part of a link behind the question mark that restores its settings.
    """
    inputs, before = made.inputs(), made.drawn.before
    return {
        "state": "done",
        "text": say("done", seed=made.parameters["seed"]),
        "name": made.name,
        "png": base64_of(made.png),
        "before": None if before is None else base64_of(before),
        "inputs": None if inputs is None else {"name": inputs[0], "content": base64_of(inputs[1])},
        "command": made.command,
        "query": query,
    }


def base64_of(content: bytes) -> str:
    """Bytes as text, as scripts take them."""
    return base64.b64encode(content).decode("ascii")
