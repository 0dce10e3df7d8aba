"""Where the command `latentdiff` starts and ends: dispatch, and errors as one line and an exit code."""

from __future__ import annotations

import os
import sys

from latentdiff.cli.commands import convert, data, info, train
from latentdiff.cli.commands.images import add_parsers
from latentdiff.cli.parser import Parser, parse
from latentdiff.errors import LatentDiffError, TrainingInterrupted

COMMANDS = (
    add_parsers,
    convert.add_parser,
    info.add_parser,
    train.add_parser,
    data.add_parser,
)

EXIT_FAILED = 1
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


def make_parser() -> Parser:
    """The parser of all commands."""
    from latentdiff import __version__

    parser = Parser(prog="latentdiff", description="Latent diffusion models: sample, inspect and train them.")
    parser.add_argument("--version", action="version", version=f"latentdiff {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_parser in COMMANDS:
        add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments, those of the process by default.

    Returns:
        The exit code: 0; 2 after a wrong option or input, told in one line on stderr; 1 where the system failed, such
        as by a full disk; 130 after an interrupt; 143 where SIGTERM ended a training run.
    """
    try:
        args = parse(make_parser(), sys.argv[1:] if argv is None else argv)
        args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except TrainingInterrupted as stop:
        print(f"latentdiff: {stop}", file=sys.stderr)
        return 128 + stop.number
    except LatentDiffError as error:
        return _fail(str(error), EXIT_WRONG_INPUT)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


def _fail(message: str, code: int) -> int:
    print(f"latentdiff: error: {' '.join(message.split())}", file=sys.stderr)
    return code
