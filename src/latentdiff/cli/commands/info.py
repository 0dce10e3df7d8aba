"""`latentdiff info`: what a model, a folder of latents or an image is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from json import dumps

from latentdiff.cli import console
from latentdiff.cli.options import Flag
from latentdiff.cli.replay import command
from latentdiff.types import JSON

Describe = Callable[[str], JSON]


def info(target: str, /, *, json: Flag = False) -> None:
    """Show what a model, a folder of latents or an image is.

    A model is told by its components, an image of `latentdiff generate` by how it was made. Weights are not loaded;
    a hub model is downloaded into the hub's cache first.

    Args:
        target: A model folder, that of a training run, a checkpoint file, builtin:NAME, a hub id, a folder of latents,
            or a generated image.
        json: Print JSON.
    """
    console.announce(f"reading {target}")
    from latentdiff.inspection.model import result_of_run

    target = result_of_run(target)
    with console.quiet_libraries(quiet=False):
        describe = next(describe for recognise, describe in targets() if recognise(target))
        facts = describe(target)
        if isinstance(facts.get("parameters"), Mapping):  # of a generated picture
            facts["command"] = command(facts["parameters"])
    for line in [dumps(facts, indent=2)] if json else render(facts):
        console.say(line)


def targets() -> list[tuple[Callable[[str], bool], Describe]]:
    """The kinds of targets, as (recognise, describe); the first that recognises a target describes it."""
    from latentdiff.inspection import checkpoint as describe_checkpoint
    from latentdiff.inspection import latents, picture
    from latentdiff.inspection import model as describe_model

    return [
        (picture.is_picture, picture.describe_picture),
        (describe_checkpoint.is_checkpoint, describe_checkpoint.describe_checkpoint),
        (latents.is_latents, latents.describe_latents),
        (describe_model.is_component, describe_model.describe_component),
        (lambda target: True, describe_model.describe_pipeline),
    ]


def render(facts: Mapping[str, object], indent: str = "") -> Iterator[str]:
    """Lines of "name: value", mappings indented below their name; what is None is left out."""
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            yield f"{indent}{label}:"
            yield from render(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{label}: {_text(name, value)}"


def _text(name: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int) and name == "bytes":
        return f"{value / 2**20:,.2f} MiB"
    return f"{value:,}" if isinstance(value, int) and name == "parameters" else str(value)
