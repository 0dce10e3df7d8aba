"""A folder that a process has for itself."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from latentdiff import InputError
from latentdiff.io import lock as locks
from latentdiff.io.lock import LOCK, locked

HOLD = """
import os, sys, time
from pathlib import Path
from latentdiff.io.lock import locked
with locked(Path(sys.argv[1])):
    if sys.argv[2] == "fork" and not os.fork():
        time.sleep(30)
    print("held", flush=True)
    time.sleep(30)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the folder; `fork` for one with a child that outlives it."""
    started = []

    def start(how="alone"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), how], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout.readline() == "held\n"
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("has_locks", [True, False])
def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path, holder, monkeypatch, has_locks):
    if not has_locks:
        monkeypatch.setattr(locks, "try_lock", lambda descriptor: None)
    first = holder()
    with pytest.raises(InputError, match=f"process {first.pid} is at work in .*; wait until it"), locked(tmp_path):
        pass
    first.kill()
    first.wait()
    with locked(tmp_path):
        assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_ends_with_its_process_though_a_child_lives_on(tmp_path, holder):
    first = holder("fork")
    time.sleep(0.1)
    first.kill()
    first.wait()
    with locked(tmp_path):
        pass


def test_one_process_has_a_folder_once_by_any_of_its_names(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with locked(tmp_path / "folder"), pytest.raises(InputError, match="is at work in"), locked(tmp_path / "link"):
        pass
    with locked(tmp_path / "link"):
        pass


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_a_user_has_under_the_name_of_the_lock_stays(tmp_path, kind):
    mine, path = tmp_path / "mine.txt", tmp_path / LOCK
    mine.write_text("mine")
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(mine)
    else:
        path.mkdir()
    with pytest.raises(InputError, match="is in the way of a lock; rename it"), locked(tmp_path):
        pass
    assert mine.read_text() == "mine" and (kind != "file" or path.read_text() == "mine")
    assert path.is_symlink() == (kind == "link") and path.is_dir() == (kind == "folder")
