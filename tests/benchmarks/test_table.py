"""The table's benchmarks run, and both sides compute the same; what they measure says nothing at this size."""

import json

import pytest
import torch

from benchmarks.__main__ import main


def table(tmp_path, *words):
    main([*words, "--json", str(tmp_path / "table.json")])
    return json.loads((tmp_path / "table.json").read_text())


@pytest.mark.thorough
def test_a_step_of_both_sides_is_the_same_prediction(tmp_path):
    sides = ("--sides", "latentdiff eager", "diffusers eager")
    found = table(tmp_path, "step", "--sizes", "builtin", "--batches", "2", "--rounds", "1", *sides)
    stock, own = found["rows"]
    assert (stock["side"], own["side"], own["base"]) == ("diffusers eager", "latentdiff eager", "diffusers eager")
    assert own["what"] == "built-in, batch 2, guided, float32"
    assert float(own["note"].rpartition(" ")[2]) < 1e-5
    assert found["facts"]["instructions"] == torch.backends.cpu.get_cpu_capability()


@pytest.mark.thorough
def test_what_is_not_there_is_a_line(tmp_path):
    words = ("step", "--sizes", "builtin", "--batches", "1", "--rounds", "1", "--sides", "latentdiff eager", "original")
    rows = table(tmp_path, *words, "--original", str(tmp_path))["rows"]
    assert [row["side"] for row in rows] == ["original code", "latentdiff eager"]
    assert rows[0]["note"] == "the original code has no such model" and rows[0]["seconds"] is None


@pytest.mark.slow
def test_it_prints_a_line_for_every_workload(tmp_path):
    rows = table(tmp_path, "training", "--rounds", "1", "--quick")["rows"]
    names = [row["what"].rpartition(", batch")[0] for row in rows]
    assert names[::2] == names[1::2] == ["first stage", "diffusion, cached", "diffusion, not cached"]
    assert all(row["seconds"]["median"] > 0 for row in rows)


@pytest.mark.slow
def test_a_case_that_fails_leaves_the_others_alone(tmp_path):
    with pytest.raises(SystemExit):
        table(tmp_path, "loading", "decode", "--sizes", "builtin", "--quick", "--rounds", "1", "--against", "no-commit")
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert "there is no commit no-commit" in rows[0]["note"]
    assert {row["case"] for row in rows[1:]} == {"decode"}
