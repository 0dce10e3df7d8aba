"""All that the page of the demo says, in one table; another language gives other texts under the same names."""

from __future__ import annotations

from collections.abc import Mapping

ENGLISH: Mapping[str, str] = {
    "title": "latentdiff",
    "intro": "Latent diffusion models: choose a model, say or draw what you want, and make an image.",
    "missing": "No model here does: {tasks}. To offer one, start the page with its name: latentdiff demo MODEL.",
    "model": "Model",
    "prompt": "Prompt",
    "prompt.hint": "What the image shall show",
    "negative_prompt": "Negative prompt",
    "negative_prompt.hint": "What to lead away from",
    "label": "Class",
    "seed": "Seed",
    "new_seed": "New seed for each image",
    "settings": "Settings",
    "steps": "Steps",
    "scheduler": "Solver",
    "scheduler.own": "the model's own",
    "guidance_scale": "Guidance scale (1 is none)",
    "cache_interval": "Evaluate the network in full once in N steps (1: in each)",
    "generate": "Make an image",
    "cancel": "Cancel",
    # What the page is drawn on.
    "canvas.image": "Small image",
    "canvas.mask": "Photo, with a mask over what is to be made anew",
    "canvas.boxes": "Boxes with objects",
    "canvas.labels": "Label map",
    "canvas.open": "Open a picture",
    "canvas.drop": "or drop one here",
    "canvas.side": "Longest side",
    "canvas.tool": "Tool",
    "canvas.brush": "Brush",
    "canvas.fill": "Fill",
    "canvas.eraser": "Eraser",
    "canvas.size": "Brush size",
    "canvas.undo": "Undo",
    "canvas.redo": "Redo",
    "canvas.clear": "Clear",
    "canvas.class": "Class",
    "canvas.remove": "Remove {name}",
    "canvas.reading": "The picture is being read.",
    "canvas.failed": "The picture could not be sent; it has more than {megabytes} MB, or the server is gone.",
    "canvas.keyboard": "Keyboard",
    "canvas.help": (
        "Arrow keys move, with Shift by eight pixels; Space paints, or sets the corners of a box; B, F and E "
        "choose brush, fill and eraser; plus and minus change the brush; Ctrl+Z undoes, Ctrl+Y redoes."
    ),
    # What has become of a request.
    "waiting": "Waiting; {ahead} before you.",
    "running": "Step {step} of {of}",
    "starting": "Starting",
    "done": "Done, seed {seed}.",
    "cancelled": "Cancelled.",
    "empty": "The image will appear here.",
    "result": "Result",
    "preview": "What the image is becoming",
    "before": "Before",
    "compare": "Before and after: how much is shown of the result",
    "download": "Download the image",
    "download_inputs": "Download what was drawn",
    "link": "Copy a link to these settings",
    "copied": "Copied.",
    "command": "The same by the command line",
    "history": "Made so far",
    "restore": "Restore the settings of {name}",
    "gone": "The drawing of this link is kept here no longer; its other settings are restored.",
    # What may be wrong.
    "error.model": "{model} isn't offered here; choose a model of the list.",
    "error.link": "This link has {setting} = {value!r}, which is none; it is left as it was.",
    "error.draw.image": "Open a small image first.",
    "error.draw.mask": "Open a photo, and paint over what is to be made anew.",
    "error.draw.boxes": "Draw a box for each object first: choose its class, then drag.",
    "error.draw.labels": "Paint a label map first.",
    "error.photo": "The photo is kept here no longer; open it again.",
    "error.upload.pixels": "The picture has {megapixels} megapixels; at most {most} are read. Make it smaller first.",
    "error.upload.bytes": "The picture has more than {megabytes} MB; make it smaller first.",
    "error.upload.kind": "This is no picture that can be read; PNG, JPEG and WebP can.",
    "error.busy": "{most} requests are waiting already; try again in a while.",
    "error.memory": "There is no memory for this; take a smaller picture or model, or try again in a while.",
    "error.unknown": "Something went wrong on the server; its log says what.",
}


def say(name: str, **values: object) -> str:
    """The text of a name, with its values."""
    return ENGLISH[name].format(**values)
