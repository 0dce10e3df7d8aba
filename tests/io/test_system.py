"""The fallbacks for other systems, with real files: the system's calls fail or are absent as they do there."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import latentdiff
from latentdiff.data.stream import stream
from latentdiff.hub.save import write_folder
from latentdiff.io import system
from latentdiff.io.files import atomic_file, atomic_folder

POSIX = (
    r"\bos\.(link|symlink|fsync|fork|kill|killpg|get[eug]+id|setsid|chown|mkfifo|uname|nice|statvfs|sched_\w+|posix_\w+|O_DIRECTORY)\b",
    r"\bsignal\.(alarm|setitimer|pause|SIGALRM|SIGKILL|SIGHUP|SIGUSR[12]|SIGCHLD)\b",
    r"\b(import|from) (fcntl|resource|pwd|grp|termios|syslog)\b",
    r"/(proc|dev|tmp)/",
)


def test_no_other_module_needs_posix():
    package = Path(latentdiff.__file__).parent
    for path in package.rglob("*.py"):
        found = [re.search(pattern, path.read_text(encoding="utf-8")) for pattern in POSIX]
        assert path.name == "system.py" or not any(found), f"{path}: {found}; put it into io/system.py"


def write_both(folder):
    with atomic_file(folder / "a.txt") as aside:
        aside.write_text("file")
    for text in ("old", "new"):
        with atomic_folder(folder / "model") as aside:
            (aside / "deep").mkdir()
            (aside / "deep" / "b.txt").write_text(text)
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "model"]
    assert (folder / "a.txt").read_text() == "file"
    assert (folder / "model" / "deep" / "b.txt").read_text() == "new"


def test_windows_opens_no_folders_and_syncs_files_opened_for_writing(tmp_path, monkeypatch):
    opened, real_open, real_sync = {}, os.open, os.fsync

    def windows_open(path, flags, *args, **kwargs):
        if os.path.isdir(path) and "dir_fd" not in kwargs:  # which shutil gives on systems that open folders
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        descriptor = real_open(path, flags, *args, **kwargs)
        opened[descriptor] = flags
        return descriptor

    def windows_sync(descriptor):
        if not opened[descriptor] & os.O_RDWR:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real_sync(descriptor)

    monkeypatch.setattr(os, "open", windows_open)
    monkeypatch.setattr(os, "fsync", windows_sync)
    monkeypatch.setattr(system, "fcntl", None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_both(tmp_path)
    monkeypatch.setattr(system, "SYNCED_AS", os.O_RDWR)
    write_both(tmp_path)


def test_macos_empties_the_cache_of_the_drive(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(system.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(system.fcntl, "fcntl", lambda descriptor, command: called.append(command))
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("fsync alone does less"))
    write_both(tmp_path)
    assert set(called) == {51}


def test_a_file_system_without_that_is_synced_as_far_as_it_goes(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(system.fcntl, "F_FULLFSYNC", 10**6, raising=False)  # Linux knows no such command
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), real(descriptor)))
    write_both(tmp_path)
    assert synced


def test_other_errors_of_a_sync_are_told(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_both(tmp_path)


def without_links(monkeypatch, how):
    def refuse(*args, **kwargs):
        raise how

    if how is None:
        monkeypatch.delattr(os, "link")
    else:
        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("how", [OSError(errno.EPERM, "no links"), NotImplementedError("follow_symlinks"), None])
def test_files_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch, how):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    (tmp_path / "model" / "link.txt").symlink_to("notes.txt")
    without_links(monkeypatch, how)
    write_folder(tmp_path / "model", [], None, lambda folder: (folder / "model_index.json").write_text("{}"))
    assert sorted(os.listdir(tmp_path / "model")) == ["link.txt", "model_index.json", "notes.txt"]
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    assert os.readlink(tmp_path / "model" / "link.txt") == "notes.txt"


@pytest.mark.parametrize("alarms", [True, False])
def test_workers_serve_with_and_without_alarms(monkeypatch, alarms):
    if not alarms:
        monkeypatch.delattr(signal, "SIGALRM")
        monkeypatch.delattr(signal, "alarm")
    batches = stream(list(torch.arange(8.0)), 4, seed=0, num_workers=1)
    expected = stream(list(torch.arange(8.0)), 4, seed=0)
    assert [next(batches).tolist() for _ in range(3)] == [next(expected).tolist() for _ in range(3)]
    batches.close()


DELAYED = """
import os, signal, sys, time
from latentdiff.io.system import delay_sigterm
delay_sigterm(1)
os.kill(os.getpid(), signal.SIGTERM)
print("goes on", flush=True)
time.sleep(60)
"""


@pytest.mark.thorough
def test_sigterm_ends_a_process_after_a_while():
    done = subprocess.run([sys.executable, "-c", DELAYED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, "goes on\n")


def test_errors_have_c_numbers():
    assert system.errno_of(errno.ENOSPC) == errno.ENOSPC
