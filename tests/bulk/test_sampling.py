"""Samplings on several processes, of which one is killed."""

import signal

import pytest
from forked import Forked
from leftovers import kill_when
from tiny import tiny_unconditional

from latentdiff.cli.main import main

pytestmark = pytest.mark.thorough


def test_a_kill_minus_9_loses_a_batch_at_most(tmp_path):
    command = ["sample", "--model", str(tiny_unconditional(tmp_path / "model")), "--seed", "0-23", "--steps", "2"]
    command += ["--batch-size", "3", "--device", "cpu", "--quiet"]
    assert main([*command, "-o", str(tmp_path / "one")]) == 0
    command += ["-o", str(tmp_path / "two")]

    def worker(rank, until=None):
        """The exit code of one of an array of jobs, which may be killed on the way."""

        def work():
            if until is not None:
                kill_when(until)
            return main(command)

        return Forked(work, environment={"RANK": rank, "WORLD_SIZE": 2}).ended().returncode

    second = tmp_path / "two" / "000006.png"  # the first image of this process's second batch
    assert worker(0, until=second.exists) == -signal.SIGKILL
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("*.png")}
    assert {"000000.png", "000001.png", "000002.png"} < set(kept)
    assert worker(1) == worker(0) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} and len(made) == 24
    assert {name: (tmp_path / "two" / name).stat().st_mtime_ns for name in kept} == kept


@pytest.mark.slow
def test_ray_makes_the_images_of_one_process(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install latentdiff[ray]")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    command = ["sample", "--model", str(tiny_unconditional(tmp_path / "model")), "--seed", "0-6", "--steps", "2"]
    command += ["--batch-size", "3", "--device", "cpu", "--quiet"]
    assert main([*command, "-o", str(tmp_path / "one")]) == 0
    assert main([*command, "-o", str(tmp_path / "ray"), "--engine", "ray", "--workers", "1"]) == 0
    made, alone = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("ray", "one"))
    assert made == alone and len(made) == 7
