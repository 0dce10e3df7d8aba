"""Errors that a user can cause. Each message is one line: what was given, what is allowed, what to do."""

LONGEST = 2000


class LatentDiffError(Exception):
    """Base of every error that latentdiff raises on purpose.

    Args:
        message: Made one line of printable characters, since names in a file may hold line breaks and escape codes.
    """

    def __init__(self, message: str = "") -> None:
        line = " ".join(message.split())
        if len(line) > LONGEST:
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


class ConfigError(LatentDiffError, ValueError):
    """A recipe, component configuration or option is not valid."""


class InputError(LatentDiffError, ValueError):
    """A prompt, image, size, seed or other call argument is not valid."""


class BadFileError(InputError):
    """A file can't be decoded; a training run goes on without it."""


class TooLargeError(InputError):
    """There is not enough memory for an image."""


class CheckpointError(LatentDiffError, OSError):
    """A model folder or weight file is missing, incomplete or damaged."""


class UnsafeCheckpointError(CheckpointError):
    """A file would have to run code to be read; it is refused."""


class HubError(LatentDiffError, OSError):
    """The model hub refused a request or could not be reached."""


class TrainingInterrupted(LatentDiffError):
    """A signal ended a training run, whose state is saved.

    Args:
        message: Says how to go on.
        number: Of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class LatentDiffWarning(UserWarning):
    """What a user should know though work goes on, in one line."""
