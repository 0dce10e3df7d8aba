import os

import pytest

from latentdiff.errors import InputError
from latentdiff.io.files import atomic_file, atomic_folder, check_writable


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_file(target) as aside:
        aside.write_text("whole")
        assert not target.exists()
        assert aside.suffix == ".txt"
    assert names(target.parent) == ["a.txt"]
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_file(target) as aside:
        aside.write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert target.read_text() == "old"


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "model"
    with atomic_folder(target) as aside:
        (aside / "old").write_text("1")
    with atomic_folder(target) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "new").write_text("2")
        assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]
    assert names(target) == ["deep"]
    assert (target / "deep" / "new").read_text() == "2"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_folder(tmp_path, error):
    target = tmp_path / "model"
    with atomic_folder(target) as aside:
        (aside / "old").write_text("1")
    with pytest.raises(error), atomic_folder(target) as aside:
        (aside / "new").write_text("2")
        raise error
    assert names(tmp_path) == ["model"]
    assert names(target) == ["old"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path):
    target = tmp_path / "model"
    with atomic_folder(target) as aside:
        (aside / "old").write_text("1")
    with pytest.raises(OSError), atomic_folder(target) as aside:
        os.rmdir(aside)
    assert names(tmp_path) == ["model"]
    assert names(target) == ["old"]


def test_checking_a_path_makes_nothing(tmp_path):
    target = tmp_path / "a" / "b" / "c.png"
    assert check_writable(str(target)) == target
    assert names(tmp_path) == []


def test_an_existing_file_or_folder_can_be_written(tmp_path):
    (tmp_path / "a.png").write_text("old")
    assert check_writable(tmp_path / "a.png")
    assert check_writable(tmp_path)


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.png", tmp_path / "file" / "b" / "a.png"):
        with pytest.raises(InputError, match=r"file is not a folder; choose another"):
            check_writable(path)


def test_a_name_that_the_file_system_refuses_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .* too long"):
        check_writable(tmp_path / ("a" * 300))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that nobody can write to")
def test_a_folder_without_permission_cannot_be_written():
    with pytest.raises(InputError, match=r"cannot write /proc/a\.png"):
        check_writable("/proc/a.png")
