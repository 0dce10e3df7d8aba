"""Processes of a test's own that cost no imports: the process of the tests is forked, in which all is loaded.

Threads of torch would not survive a fork, and neither would a GPU: tests/conftest.py sees to it that there are none.
They are no help where a fresh interpreter is to be seen, such as what is imported when.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from multiprocessing.context import ForkProcess

from accelerate.state import AcceleratorState, GradientState

PATIENCE = 300  # seconds after which a process counts as one that never ends; a busy machine needs tens


class Forked(ForkProcess):
    """A call in a process of its own, which begins at once and leads a group of its own.

    Args:
        call: Its result is the exit code if it is a number, else that is 0.
        folder: The working folder, if it is another one.
        environment: Variables to be set.
    """

    def __init__(self, call, folder=None, environment=()):
        super().__init__()
        self.call, self.folder, self.environment = call, folder, dict(environment)
        self.files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        self.start()

    def run(self):
        os.setsid()
        for descriptor, file in enumerate(self.files, 1):
            os.dup2(file.fileno(), descriptor)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        warnings.showwarning = write_warning  # pytest would collect them
        for number in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update({name: str(value) for name, value in self.environment.items()})
        os.chdir(self.folder or ".")
        AcceleratorState._reset_state(reset_partial_state=True)  # of runs of the tests' process
        GradientState._reset_state()
        result = self.call()
        sys.exit(result if isinstance(result, int) else 0)

    def end(self):
        """Kill it and the processes that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.kill()
        self.join()

    def ended(self, patience=PATIENCE):
        """What it wrote and its exit code, once it has ended."""
        wait_for(lambda: not self.is_alive(), patience=patience)
        out, err = (os.pread(file.fileno(), 2**24, 0).decode(errors="replace") for file in self.files)
        return subprocess.CompletedProcess(self.name, self.exitcode, out, err)


def write_warning(message, category, filename, lineno, file=None, line=None):
    """As Python does where nobody collects warnings."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def all_ended(processes):
    """The same of several, which must be at work at once."""
    return [process.ended() for process in processes]


def launched(call, count=2, folder=None):
    """The processes of a call as torchrun starts them: they know of one another."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": found.getsockname()[1]}
    place |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return [Forked(call, folder, {**place, "RANK": rank, "LOCAL_RANK": rank}) for rank in range(count)]


def wait_for(condition, process=None, patience=PATIENCE):
    """Wait until something holds; if a process is to bring it about, no longer than that is at work."""
    end = time.monotonic() + patience
    while not condition():
        assert process is None or process.is_alive(), process.ended()
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.002)
