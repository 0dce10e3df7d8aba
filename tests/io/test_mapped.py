"""Arrays in files: their space is there before they are mapped, so that a full disk is an error and not a signal."""

import errno
import multiprocessing.reduction
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from latentdiff.io import system
from latentdiff.io.mapped import MappedArray, create_mapped
from latentdiff.io.system import allocate


@pytest.fixture
def small_disk(tmp_path):
    """A file system with space for 200 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_the_file_is_that_of_numpy(tmp_path, dtype):
    rows = create_mapped(tmp_path / "a.npy", dtype, (3, 2, 5))
    rows[1] = np.arange(10).reshape(2, 5)
    rows.flush()
    expected = np.zeros((3, 2, 5), dtype)
    expected[1] = np.arange(10).reshape(2, 5)
    np.save(tmp_path / "b.npy", expected)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert np.array_equal(MappedArray(tmp_path / "a.npy").rows, expected)


@pytest.mark.parametrize("promised", [True, False])
def test_a_full_disk_is_an_error(small_disk, monkeypatch, promised):
    """Both where the system allocates, and where zeros are written."""
    if not promised:
        monkeypatch.delattr(os, "posix_fallocate")
    create_mapped(small_disk / "a.npy", np.float16, (50_000,))
    with pytest.raises(OSError) as caught:
        create_mapped(small_disk / "b.npy", np.float16, (500_000,))
    assert caught.value.errno == errno.ENOSPC


def test_a_limit_of_file_sizes_is_an_error(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        create_mapped(tmp_path / "a.npy", np.float16, (40_000,))
        with pytest.raises(OSError) as caught:
            create_mapped(tmp_path / "b.npy", np.float16, (60_000,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno in system.NO_ROOM


def test_file_systems_that_promise_nothing(tmp_path, monkeypatch):
    def refuse(descriptor, offset, length):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with open(tmp_path / "a", "wb") as file:
        file.write(b"abc")
        file.flush()
        allocate(file.fileno(), 3_000_000)
    content = (tmp_path / "a").read_bytes()
    assert content == b"abc" + bytes(3_000_000 - 3)


def test_a_process_that_starts_afresh_is_sent_the_place(tmp_path):
    create_mapped(tmp_path / "a.npy", np.float16, (1000, 100))
    content = multiprocessing.reduction.ForkingPickler.dumps(MappedArray(tmp_path / "a.npy"))
    assert len(content) < 1000
    code = "import pickle, sys; print(len(pickle.loads(sys.stdin.buffer.read()).rows))"
    found = subprocess.run([sys.executable, "-c", code], input=bytes(content), capture_output=True, check=True)
    assert found.stdout.strip() == b"1000"


@pytest.mark.parametrize("size", [0, 5, 60, 150])
def test_a_file_that_was_cut_off(tmp_path, size):
    np.save(tmp_path / "a.npy", np.zeros(100, np.float16))
    os.truncate(tmp_path / "a.npy", size)
    with pytest.raises((OSError, ValueError)):
        MappedArray(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [b"((((,", b"(-9),", b"{100,"])
def test_a_header_that_is_damaged(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(100, np.float16))
    whole = (tmp_path / "a.npy").read_bytes()
    assert len(MappedArray(tmp_path / "a.npy").rows) == 100
    (tmp_path / "a.npy").write_bytes(whole.replace(b"(100,", shape))
    with pytest.raises(ValueError, match=r"a\.npy is damaged"):
        MappedArray(tmp_path / "a.npy")
