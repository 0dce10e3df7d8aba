"""The site is built without a warning, which a link that leads nowhere would be, and has every public name."""

import importlib
import json
import re
from pathlib import Path

import pytest
from forked import Forked

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    build = pytest.importorskip("sphinx.cmd.build")
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-c", "docs/site", "-d", str(folder / "doctrees"), ".", str(folder / "html")]
    ended = Forked(lambda: build.main(words), ROOT).ended()
    assert ended.returncode == 0, ended.stderr  # with -W, a warning is a failure
    return folder / "html"


def public_names():
    """All names of all modules that have `__all__`."""
    for path in (ROOT / "src" / "latentdiff").rglob("*.py"):
        if re.search(r"^ *__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            module = ".".join(part for part in parts if part != "__init__")
            yield from (f"{module}.{name}" for name in importlib.import_module(module).__all__)


def test_every_public_name_is_documented(site):
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    described = {name for kind in inventory.data for name in inventory.data[kind]}
    names = set(public_names())
    assert len(names) > 80 and names <= described


def test_nothing_comes_from_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]* (?:src|href)="([^"]+)"', text)
        assert loaded and not [link for link in loaded if re.match(r"(https?:)?//", link)], path


def test_the_first_page_leads_to_all_others(site):
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()
    listed = re.findall(r"\]\((.+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
    assert all((site / path).is_file() for path in listed)
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")}
    assert pages <= {path.removeprefix("_sources/") for path in listed}
    first = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page.removesuffix(".md")}.html"' in first for page in pages)


def test_search_finds_pages_by_their_words(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"]["exponenti"]
    assert "docs/training" in {index["docnames"][page] for page in ([found] if isinstance(found, int) else found)}


def test_the_map_of_imports_is_that_of_the_code(site):
    page = (site / "docs" / "architecture.html").read_text(encoding="utf-8")
    squares = re.findall(r"<title>(\w+) imports from (\w+): \d+</title>", page)
    assert ("cli", "pipelines") in squares and ("pipelines", "cli") not in squares and len(squares) > 100
