"""Watching what a call reads, asks the network for and runs, by Python's audit events."""

import signal
import site
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

from latentdiff.errors import LatentDiffError

PATIENCE = 100  # seconds after which a call counts as one that never ends

PACKAGES = tuple(
    str(Path(place).resolve())
    for place in (sys.prefix, sys.base_prefix, *site.getsitepackages(), *sysconfig.get_paths().values(), *sys.path)
    if place
)
SYSTEM = ("/proc", "/sys", "/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/usr/lib", "/lib", "/usr/share/zoneinfo")
READS = ("open", "os.listdir", "os.scandir", "os.readlink", "os.walk", "glob.glob")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request", "http.client.connect")
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
CURRENT = []  # the list that events are noted in; an audit hook can't be taken away again


def _hook(event, arguments):
    if CURRENT:
        if event in READS and arguments and isinstance(arguments[0], (str, bytes, Path)):
            CURRENT[-1].append(("read", str(arguments[0])))
        elif event in NETWORK:
            CURRENT[-1].append(("network", f"{event} {arguments}"))
        elif event in PROGRAMS:
            CURRENT[-1].append(("program", f"{event} {arguments}"))
        elif event == "exec":
            CURRENT[-1].append(("run", getattr(arguments[0], "co_filename", "")))
        elif event == "pickle.find_class":
            CURRENT[-1].append(("pickle", f"{arguments}"))


sys.addaudithook(_hook)


@contextmanager
def watched():
    """Note events as pairs of a kind and a text."""
    events = []
    CURRENT.append(events)
    try:
        yield events
    finally:
        CURRENT.pop()


def forbidden(events, folder):
    """What a model in `folder` must not bring about: reads elsewhere, requests, programs, code that isn't installed."""
    allowed = (*PACKAGES, *SYSTEM)
    for kind, text in events:
        if kind == "run":
            if text.startswith(("/", ".")) and not str(Path(text).resolve()).startswith(PACKAGES):
                yield kind, text
        elif kind == "read":
            path = Path(text)
            inside = path.resolve().is_relative_to(folder.resolve()) or path.absolute() == folder.absolute()
            if not inside and not str(path.resolve()).startswith(allowed):
                yield kind, text
        else:
            yield kind, text


@contextmanager
def in_time():
    """Ends what never ends."""

    def end(*_):
        raise TimeoutError("it never ends")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(call, folder):
    """The result of a call, or the line of its error; it has to do nothing that a model must not bring about."""
    with watched() as events, in_time():
        try:
            result = call()
        except LatentDiffError as error:
            result = str(error)
    assert not list(forbidden(events, folder))
    return result
