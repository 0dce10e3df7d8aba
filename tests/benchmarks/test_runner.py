"""The runner knows every benchmark, and documents name what there is."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import STUDIES, TABLE, main, summary
from benchmarks.gpu import Part, parts, row_of, run
from benchmarks.measuring import Report, Row, Spread

ROOT = Path(__file__).parents[2]
SHARED = {"__init__", "__main__", "measuring", "models", "resume"}
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("*.py"))]


def test_every_module_is_a_case_or_shared():
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert modules - SHARED == {*TABLE.values(), *STUDIES.values()}


def test_the_list_has_a_line_for_every_case(capsys):
    main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*TABLE, *STUDIES]
    assert all(
        summary(module) in line for module, line in zip([*TABLE.values(), *STUDIES.values()], lines, strict=True)
    )


def test_the_list_needs_no_torch():
    code = "import sys; from benchmarks.__main__ import main; main(['--list']); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0
    )


def test_documents_name_cases_that_there_are():
    named = [
        (path, name) for path in TEXTS for name in re.findall(r"-m\s+benchmarks ([a-z0-9-]+)", path.read_text("utf-8"))
    ]
    assert len(named) > 10
    assert [(path, name) for path, name in named if not name.startswith("--") and name not in TABLE | STUDIES] == []


def test_documents_name_no_script_that_is_gone():
    scripts = [(path, name) for path in TEXTS for name in re.findall(r"benchmarks/(\w+\.py)", path.read_text("utf-8"))]
    assert [(path, name) for path, name in scripts if not (ROOT / "benchmarks" / name).exists()] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["stepp"], "there is no benchmark 'stepp'; known: step, decode"),
        (["caching", "step"], "caching has options and output of its own; name it alone"),
        (["step", "savings"], "savings has options and output of its own; name it alone"),
    ],
)
def test_wrong_cases_are_told(words, told):
    with pytest.raises(SystemExit, match=re.escape(told)):
        main(words)


def test_a_study_gets_what_stands_behind_its_name(capsys):
    with pytest.raises(SystemExit):
        main(["previews", "train", "held-out", "--steps", "some"])
    assert "argument --steps: invalid int value: 'some'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"), [(["--rounds", "0"], "--rounds is 0"), (["--batches", "0"], "--batches is 0")]
)
def test_wrong_numbers_are_told(words, told, capsys):
    with pytest.raises(SystemExit):
        main(["decode", *words])
    assert told in capsys.readouterr().err


@pytest.mark.thorough
def test_a_part_that_takes_too_long_keeps_what_it_has(tmp_path):
    row = Row("step", "built-in", "latentdiff eager", Spread(1.0, 0.5, 2.0), images=2)
    content = json.dumps({"rows": [dataclasses.asdict(row)]})
    code = f"""
import sys, time
from pathlib import Path
Path(sys.argv[2]).write_text({content!r})
print("then it hangs", flush=True)
time.sleep(600)
"""
    for seconds in (1, 20):  # a busy machine may take long to begin
        rows, end = run(Part("hangs", 600, ("-c", code)), tmp_path, seconds)
        if rows:
            break
    assert rows == [row]
    assert end.startswith(f"ended after its {seconds} s") and "then it hangs" in end


def test_a_part_that_fails_tells_its_last_lines(tmp_path):
    rows, end = run(Part("fails", 60, ("-c", "print('why'); raise SystemExit(3)")), tmp_path, 60)
    assert rows == [] and end.startswith("ended with 3, ") and end.endswith("why")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_parts_of_a_gpu_run_have_names_of_their_own_and_fit_the_time(device):
    found = list(parts(device, quick=device == "cpu"))
    assert len({part.name for part in found}) == len(found)
    assert sum(part.seconds for part in found) <= 8 * 60
    assert {word for part in found for word in part.words if word in TABLE} == {"step", "decode", "samples", "training"}


def test_a_written_row_is_read_as_it_was(tmp_path, capsys):
    report = Report(tmp_path / "table.json", {"processor": "one"})
    row = Row("decode", "SD 1.x", "latentdiff", Spread(1, 1, 1), Spread(2, 1.5, 3), "diffusers", 4, 2**20, "a | note")
    report.add(row)
    entry = json.loads((tmp_path / "table.json").read_text())["rows"][0]
    assert row_of(entry) == row
    shown = "| decode | SD 1.x | latentdiff | 1 (1 to 1) | 4 | 2 (1.5 to 3) of diffusers | 1 MiB | a / note |"
    assert shown in capsys.readouterr().out.splitlines()
