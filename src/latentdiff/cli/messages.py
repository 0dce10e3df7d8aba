"""Messages in the words of the command line: errors of its parser, and flags in place of a pipeline's arguments."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Literal, get_args, get_origin

from cyclopts import (
    App,
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from latentdiff.errors import LatentDiffError
from latentdiff.registry import nearest

FLAGS = {  # arguments of pipelines, and what gives them on the command line
    "num_inference_steps": "--steps",
    "height": "the height of --size",
    "width": "the width of --size",
    "windows": "--window",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in ("seed", "eta", "strength", "batch_size", "negative_prompt", "temperature", "quantize_denoised")
    },
    **{  # of latentdiff bench
        name: f"--{name.replace('_', '-')}"
        for name in ("against", "count", "reference", "revision", "rounds", "samples_dir", "solvers", "steps", "target")
    },
    **{f"cache_{name}": f"--cache-{name}" for name in ("interval", "branch", "center", "power")},
    **{f"guidance_{name}": f"--guidance-{name}" for name in ("scale", "interval", "rescale")},
}
SOURCES = {  # what is said of a flag that is missing: where its value comes from
    "--model": "; give a folder that latentdiff train or latentdiff convert has made, or a hub id such as owner/name"
}
# "seed" and the like are arguments where a message begins with them; "eta" and what has an underscore are so anywhere.
ARGUMENT = re.compile(r"^\w+|(?<=\s)(?:eta|\w+_\w+)(?=[\s,;]|$)")
TYPE_WORDS: dict[type | None, str] = {int: "an integer", float: "a number", bool: "true or false"}


def with_flags(message: str) -> str:
    """A message about arguments of a pipeline as one about the flags that give them."""
    return ARGUMENT.sub(lambda match: FLAGS.get(match[0], match[0]), message)


@contextlib.contextmanager
def flags_named() -> Iterator[None]:
    """Let errors leave with flags in their messages."""
    try:
        yield
    except LatentDiffError as error:
        raise type(error)(with_flags(str(error))) from error


def commands_of(app: App) -> list[str]:
    """The names of the commands of an app, sorted, without those that are flags."""
    return sorted(name for name in app if not name.startswith("-"))


def explain(error: CycloptsError) -> str:
    """One line about a wrong command line: what is given, what is allowed, where to read more."""
    words = ["latentdiff", *(error.command_chain or ())]
    fault = _wrong_word(error) or _wrong_value(error) or str(error)
    return f"{fault} (see {' '.join(words)} --help)"


def _wrong_word(error: CycloptsError) -> str | None:
    """What is wrong with a word that means nothing."""
    match error:
        case UnknownOptionError():
            given = error.token.keyword or error.token.value
            known = {name: flag for flag in error.argument_collection if flag.parse for name in flag.names}
            hint = _mapping_of(given, known) or nearest(given, known)
        case UnusedCliTokensError(unused_tokens=[given, *_]):
            hint = "put values together before the options, one with blanks in quotes"
        case UnknownCommandError(unused_tokens=[given, *_]) if given.startswith("-"):
            hint = "put options after the command"
        case UnknownCommandError(unused_tokens=[given, *_], app=App() as app):
            hint = nearest(given, commands_of(app))
        case _:
            return None
    return f"unknown argument {given!r}; {hint}"


def _mapping_of(given: str, known: Mapping[str, Argument]) -> str | None:
    """How to give `--unet.sample_size`, where `--unet` is a flag that takes JSON, and what is in it has no flags."""
    for whole, flag in known.items():
        alone = not any(name.startswith(f"{whole}.") for name in known)
        if given.startswith(f"{whole}.") and alone and "JSON" in (flag.parameter.metavar or ""):
            inner = "..."
            for key in reversed(given.partition("=")[0].removeprefix(f"{whole}.").split(".")):
                inner = f'{{"{key}": {inner}}}'
            return f"{whole} takes the whole mapping as JSON: {whole} '{inner}'"
    return None


def _wrong_value(error: CycloptsError) -> str | None:
    """What is wrong with the value of an option, or with there being none."""
    argument = error.argument
    if argument is None:
        return None
    given = " ".join(token.value for token in argument.tokens)
    match error:
        case MissingArgumentError(keyword=None) if not given:
            return f"required: {argument.name}{SOURCES.get(argument.name, '')}"
        case MissingArgumentError():
            wanted, dash = argument.token_count()[0], f"; one that begins with a dash is given as {argument.name}=-..."
            number = f"1 value, 0 given{dash}" if wanted == 1 else f"{wanted} values, {len(error.tokens_so_far)} given"
            return f"{argument.name}: it takes {number}"
        case CoercionError(token=token):
            given = given or (token.value if token else "")
            choices = get_args(error.target_type) if get_origin(error.target_type) is Literal else ()
            kind = TYPE_WORDS.get(error.target_type, "of another kind")
            hint = nearest(given, choices) if choices else str(error.msg or f"it must be {kind}")
        case ValidationError():
            hint = error.exception_message
        case _:
            return None
    return f"{argument.name}: {given!r} is given; {hint}"
