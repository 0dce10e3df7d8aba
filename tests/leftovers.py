"""What killed processes leave beside their results."""

import os
import signal
import sys

from latentdiff.io.staging import make_entry

NOBODY = 2**22 + 1  # is above all numbers of processes

CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.rmdir",
    "os.remove",
    "os.link",
    "os.symlink",
    "os.chmod",
    "shutil.rmtree",
    "open",
)


def leave_behind(path, kind):
    """The folder in which a process that has ended was writing `path`, or had put it aside."""
    entry = make_entry(path, kind)
    parts = entry.name.split("-")
    return entry.rename(entry.with_name("-".join([*parts[:2], str(NOBODY), *parts[3:]])))


def killed(call, place, event):
    """Run a call in another process, which is killed before its event of that number on files in `place`.

    Returns:
        Whether it was; else the call came to its end.
    """
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    count = 0

    def hook(name, arguments):
        nonlocal count
        if name not in CHANGES or (name == "open" and not isinstance(arguments[1], str)):
            return
        if name == "open" and not set(arguments[1]) & set("wax+"):
            return
        if any(str(place) in str(argument) for argument in arguments):
            count += 1
            if count == event:
                os._exit(9)

    sys.addaudithook(hook)
    try:
        call()
        os._exit(0)
    except BaseException as error:
        os.write(2, repr(error).encode())
        os._exit(1)


def kill_when(condition):
    """Have this process killed at the first change of a file before which the condition holds, however busy it is."""

    def hook(name, arguments):
        if name in CHANGES and condition():
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
