"""What is published: the wheel's files and metadata, and the words about it that stand elsewhere."""

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import latentdiff

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def flit():
    return pytest.importorskip("flit_core.buildapi")


@pytest.fixture(scope="module")
def wheel(flit, module_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name = flit.build_wheel(str(module_folder))
    with zipfile.ZipFile(module_folder / name) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"latentdiff-{latentdiff.__version__}.dist-info"
    assert {name.split("/")[0] for name in wheel} == {"latentdiff", info}
    package = ROOT / "src" / "latentdiff"
    there = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    assert {name.removeprefix("latentdiff/") for name in wheel if name.startswith("latentdiff/")} == there
    assert {"py.typed", "builtin/emoji/model_index.json", "builtin/clip/merges.txt.gz"} <= there
    assert not [name for name in wheel if re.search(r"tests?/|golden", name) and "latentdiff/testing/" not in name]
    for name in ("LICENSE", "NOTICE"):
        assert wheel[f"{info}/licenses/{name}"] == (ROOT / name).read_bytes()


def test_the_source_distribution_has_no_test_data(flit, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with tarfile.open(tmp_path / flit.build_sdist(str(tmp_path))) as archive:
        parts = {name.split("/", 1)[1].split("/")[0] for name in archive.getnames()}
    assert parts == {"src", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "PKG-INFO"}


def test_the_lowest_python_is_said_alike():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Python {lowest} or newer" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Programming Language :: Python :: {lowest}" in PROJECT["classifiers"]
    assert f'"${{PYTHON:-python{lowest}}}"' in (ROOT / "scripts" / "check_lowest.sh").read_text(encoding="utf-8")


def test_every_dependency_has_a_lower_bound():
    extras = {name: needs for name, needs in PROJECT["optional-dependencies"].items() if name != "dev"}
    for requirement in sum(extras.values(), PROJECT["dependencies"]):
        assert re.match(r"[\w-]+(\[\w+\])?>=[\d.]+(,<[\d.]+)?$", requirement), requirement


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert (citation["title"], str(citation["version"])) == (PROJECT["name"], latentdiff.__version__)
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Rombach",
        "Blattmann",
        "Lorenz",
        "Esser",
        "Ommer",
    ]


def test_the_notice_names_what_ships_and_whose_it_is():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name in ("Noto Emoji", "unicode-emoji-json", "emojilib", "BERT", "CLIP"):
        assert name in notice
    for path in re.findall(r"\b(?:src|recipes)/[\w./-]+[\w]", notice):
        assert (ROOT / path).exists(), path
    folders = (ROOT / "src" / "latentdiff" / "builtin").iterdir()
    shipped = {re.sub("^emoji-.*", "emoji", path.name) for path in folders}  # the notice speaks of them together
    assert shipped == set(re.findall(r"src/latentdiff/builtin/([\w-]+)", notice))
