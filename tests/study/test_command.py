"""What the command refuses before it serves anything, and the report."""

import json

import pytest
from small_studies import Clock

from latentdiff.cli.main import main
from latentdiff.study.store import open_store

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(["study", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return call


@pytest.fixture
def fails(run, tmp_path):
    def call(message, *words):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = run(*words)
        assert (code, out, len(err)) == (2, [], 1)
        assert message in err[0]
        assert sorted(tmp_path.rglob("*")) == before

    return call


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("required: B", ["ours"]),
        ("nowhere is no folder", ["ours", "nowhere"]),
        ("--task", ["ours", "theirs", "--task", "inpaint"]),
        ("task inpainting asks about the image in the middle", ["ours", "theirs", "--task", "inpainting"]),
        ("--pairs: '0' is given; it must be an integer of at least 1", ["ours", "theirs", "--pairs", "0"]),
        ("pairs is 7; there are 6 different ones", ["ours", "theirs", "--pairs", "7"]),
        ("--checks", ["ours", "theirs", "--checks=-1"]),
        ("7 attention checks need as many images", ["ours", "theirs", "--checks", "7"]),
        ("--look", ["ours", "theirs", "--look=-1"]),
        ("--port", ["ours", "theirs", "--port", "65536"]),
        ("--expire is given without --invite", ["ours", "theirs", "--expire", "3"]),
        ("texts.json cannot be read as JSON", ["ours", "theirs", "--texts", "texts.json"]),
        ("cannot write ours: it is a folder", ["ours", "theirs", "--database", "ours"]),
    ],
)
def test_wrong_words(fails, message, words):
    fails(message, *words, *([] if "--port" in words else ["--port", "0"]))


def test_report(run, fails, tmp_path, study):
    fails("study.db is no file", "report")
    clock = Clock()
    with open_store(tmp_path / "study.db", study, clock) as store:
        number = store.participant(store.join())
        store.show(number, 0)
        clock.now += 3
        store.answer(number, 0, "left")
    code, out, err = run("report", "study.db", "--json", "a.json", "--markdown", "a.md", "--csv", "a.csv", "--everyone")
    assert (code, err) == (0, [])
    assert out[0].startswith("task")
    assert json.loads((tmp_path / "a.json").read_text())["participants"] == 1
    assert (tmp_path / "a.md").read_text().startswith("| task | preferred | over |")
    assert (tmp_path / "a.csv").read_text().startswith("participant,position,image,left,right,chosen,seconds\n")
    assert run("report") == run("report", "study.db")
    fails("--wrong-checks", "report", "--wrong-checks=-1")
    fails("a.json is given for two files", "report", "--json", "a.json", "--markdown", "a.json")
