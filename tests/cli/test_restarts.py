"""Samplings that are killed, and what they leave."""

import shutil

import pytest
from leftovers import killed, leave_behind

from latentdiff.cli.main import main
from latentdiff.io.staging import ASIDE

pytestmark = pytest.mark.thorough


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])  # event of the file system
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_sampling_that_is_killed_anywhere_can_be_made_again(unconditional_model, tmp_path, overwrite, every):
    """In a folder of its own, and over the images of an earlier one."""
    command = ["sample", "--model", unconditional_model, "--seed", "0-1", "--steps", "1", "--quiet"]
    command += ["--overwrite"] if overwrite else []
    out, event = tmp_path / "out", 1
    assert main([*command, "-o", str(tmp_path / "whole")]) == 0
    whole = contents(tmp_path / "whole")
    while killed(lambda: main([*command, "-o", str(out)]), out, event):
        found = contents(out) if out.exists() else {}
        assert {name: found[name] for name in whole if name in found}.items() <= whole.items()
        assert main([*command, "-o", str(out)]) == 0
        assert contents(out) == whole and len(list(out.iterdir())) == 2
        if not overwrite:
            shutil.rmtree(out)
        event += every
    assert contents(out) == whole and event > 10


def test_what_is_left_beside_images_that_are_kept_goes_and_a_users_files_stay(unconditional_model, tmp_path):
    command = [
        "sample",
        "--model",
        unconditional_model,
        "--seed",
        "0-1",
        "--steps",
        "1",
        "--quiet",
        "-o",
        str(tmp_path),
    ]
    assert main(command) == 0
    whole = contents(tmp_path)
    (leave_behind(tmp_path / "000000.png", ASIDE) / "000000.png").write_bytes(b"half")
    (leave_behind(tmp_path / "000007.png", ASIDE) / "000007.png").write_bytes(b"of another sampling")
    (tmp_path / ".000001.png.aside-mine").write_text("mine")
    (tmp_path / ".mine.latentdiff").mkdir()
    (tmp_path / ".mine.latentdiff" / "a.txt").write_text("mine")
    assert main(command) == 0
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert hidden == {".000001.png.aside-mine", ".mine.latentdiff"}
    assert whole.items() <= contents(tmp_path).items()
