"""Errors that a user can cause. Each message is one line: what was given, what is allowed, what to do."""

MAX_CHARACTERS = 2000  # in a message; what is longer loses its middle


def one_line(error: BaseException) -> str:
    """The text of a library's error in one line of at most 300 characters; the name of its class if it has no text."""
    return " ".join(str(error).split())[:300] or type(error).__name__


class LatentDiffError(Exception):
    """Base of every error that latentdiff raises on purpose.

    Args:
        message: The message. It is made one line of printable characters, since names that come from a file may hold
            line breaks and terminal escape codes.
    """

    def __init__(self, message: str = "") -> None:
        line = " ".join(message.split())
        if len(line) > MAX_CHARACTERS:
            half = MAX_CHARACTERS // 2
            line = f"{line[:half]} ... {line[-half:]}"
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


class ConfigError(LatentDiffError, ValueError):
    """A recipe, a component's configuration or an option is not valid."""


class InputError(LatentDiffError, ValueError):
    """A prompt, image, size, seed or other argument of a call is not valid."""


class BadFileError(InputError):
    """A file can't be decoded; a training run goes on without it."""


class TooLargeError(InputError):
    """An image needs more memory than there is."""


class NonFiniteError(InputError):
    """Latents or images came out infinite or not a number, mostly by an overflow in float16."""


class CheckpointError(LatentDiffError, OSError):
    """A model folder or weight file is missing, incomplete or damaged."""


class UnsafeCheckpointError(CheckpointError):
    """A file can't be read without running code that it brings, so it is refused."""


class HubError(LatentDiffError, OSError):
    """The model hub refused a request or could not be reached."""


class TrainingInterrupted(LatentDiffError):
    """A signal ended a training run, whose state is saved.

    Args:
        message: The message, which says how to resume the run.
        number: The number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What the command ends with, as a shell says it of a signal."""
        return 128 + self.number


class TimeLimitReached(TrainingInterrupted):
    """The time that its recipe gives a training run is up; its state is saved."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 0)

    @property
    def exit_code(self) -> int:
        """EX_TEMPFAIL of sysexits.h: try again."""
        return 75


class LatentDiffWarning(UserWarning):
    """A warning in one line: something that a user should know although work goes on."""
