"""Where the command `latentdiff` starts and ends: the table of commands, and errors as one line and an exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from latentdiff import __version__
from latentdiff.cli.commands import (
    DATA_COMMANDS,
    DEMO_COMMANDS,
    EVALUATE_COMMANDS,
    IMAGE_COMMANDS,
    MODEL_COMMANDS,
    RECIPES_COMMAND,
    SCHEMA_COMMAND,
    START_COMMANDS,
    STUDY_COMMAND,
    TRAIN_COMMANDS,
)
from latentdiff.cli.messages import commands_of, explain
from latentdiff.errors import InputError, LatentDiffError, TrainingInterrupted

EXIT_FAILED = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130

TRAIN_HELP = (
    "Train a first stage, diffusion model or classifier on your own images; "
    "latentdiff train RECIPE.yaml ... trains what several recipes say, one after another."
)
HELP_FLAGS = ("--help", "-h")
IMAGE_NOTE = (
    "Images carry the parameters of their generation, which `latentdiff info IMAGE.png` shows. "
    "Under `accelerate launch -m latentdiff COMMAND ...` several processes share the work and make the same files."
)
TRAIN_NOTE = (
    "A flag wins over the recipe's file, and flags alone will do. "
    "Under `accelerate launch -m latentdiff train ...` several processes share the work."
)


def names_recipes(words: Collection[str]) -> bool:
    """Whether a command line is `train RECIPE.yaml ...`, with no stage named."""
    command, second = [*words, "", ""][:2]
    recipes = [word for word in words if word.endswith((".yaml", ".yml"))]
    return command == "train" and bool(recipes) and second != "--schema" and (second in recipes or second[:1] == "-")


def make_app(called: Collection[str] = ()) -> App:
    """All commands, whose flags and texts are those of their functions.

    Args:
        called: The words of the command line. A command among them has its whole text, the others have a line.
    """
    app = App(
        "latentdiff",
        help="Latent diffusion models: sample, inspect and train them.",
        version=f"latentdiff {__version__}",
        version_format="plaintext",
        help_flags=HELP_FLAGS,
        group_parameters=Group.create_default_parameters("Options"),
        default_parameter=Parameter(negative=(), allow_repeating=True),
    )

    def add(group: App, commands: Mapping[str, tuple[str, str]], note: str | None = None) -> None:
        for name, (command, summary) in commands.items():
            group.command(command, name=name, help=None if name in called else summary, help_epilogue=note)

    add(app, IMAGE_COMMANDS, IMAGE_NOTE)
    add(app, MODEL_COMMANDS)
    add(app, DEMO_COMMANDS)
    add(app, START_COMMANDS)
    train = App("train", help=TRAIN_HELP)
    if names_recipes(called):
        module, _, attribute = RECIPES_COMMAND.partition(":")
        train.default(getattr(import_module(module), attribute))
    for name, (command, trained) in TRAIN_COMMANDS.items():
        usage = f"Usage: latentdiff train {name} [RECIPE.yaml] [--OPTION VALUE ...]"
        how = {"usage": usage, "help_format": "plaintext", "help_epilogue": TRAIN_NOTE}  # markdown would take longer
        train.command(command, name=name, help=f"Train {trained}.", **how)
    train.command(SCHEMA_COMMAND, name="--schema", help="Print the JSON schema of the recipes of all stages.")
    data = App("data", help="Look at training data before training.")
    add(data, DATA_COMMANDS)
    evaluate = App("evaluate", help="Measure samples, reconstructions and restored images as papers do.")
    add(evaluate, EVALUATE_COMMANDS)
    app.command(train)
    app.command(data)
    app.command(evaluate)
    command, summary = STUDY_COMMAND
    app.command(command, name="study", help=None if "study" in called else summary)
    app.register_install_completion_command(help="Install completion for this shell.")
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments, those of the process by default.

    Returns:
        The exit code: 0; 2 after a wrong option or input, told in one line on stderr; 1 where the system failed, such
        as by a full disk, or where a check found faults; 130 after an interrupt; of a training run 143 where SIGTERM
        ended it, and 75 where its time was up.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except TrainingInterrupted as stop:
        print(f"latentdiff: {stop}", file=sys.stderr)
        return stop.exit_code
    except (CycloptsError, LatentDiffError) as error:
        return _fail(explain(error) if isinstance(error, CycloptsError) else str(error), EXIT_WRONG_INPUT)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def script() -> NoReturn:
    """What a shell runs: `main`, whose result is the exit code.

    Python's collector of garbage would take a quarter of the time of --help: before a command runs there is none, and
    at exit it would go through all modules once more.
    """
    gc.disable()
    code = main()
    if "torch" not in sys.modules:
        gc.freeze()
    sys.exit(code)


def _run(words: list[str]) -> int:
    """Parse the words and call what they name; its exit code."""
    app = make_app(words)
    if words[:1] == ["train"] and ((words[1:2] and words[1] in TRAIN_COMMANDS) or names_recipes(words)):
        from latentdiff.cli.commands.train import with_values

        words = with_values(words)
    command, bound, _ = app.parse_args(list(words), print_error=False, exit_on_error=False)
    if command != app.help_print:
        gc.enable()
    elif not set(HELP_FLAGS) & set(words):
        for word in words:
            app = app[word]
        known, called = ", ".join(commands_of(app)), " ".join(["latentdiff", *words])
        raise InputError(f"required: COMMAND; known: {known} (see {called} --help)")
    return command(*bound.args, **bound.kwargs) or 0


def _fail(message: str, code: int) -> int:
    print(f"latentdiff: error: {' '.join(message.split())}", file=sys.stderr)
    return code
