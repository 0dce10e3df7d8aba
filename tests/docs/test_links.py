"""Links in the documentation lead somewhere, as a forge reads them: to files, and to headings in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", "docs/*.md", "examples/*.md", "recipes/*/README.md", "src/latentdiff/builtin/*/README.md")
PAGES = sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))
LINK = re.compile(r"\]\(([^()\s]*)\)")


def without_code(text):
    return re.sub(r"^(```+).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(path):
    """What headings are called in links: small letters, dashes for blanks, no other marks."""
    headings = re.findall(r"^#+ +(.*)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(path):
    text = re.sub(r"`[^`\n]*`", "", without_code(path.read_text(encoding="utf-8")))
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path if not file else path.parent / file
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    assert list(broken(path)) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "b.md").write_text("# Its own Heading, really\n")
    page = tmp_path / "a.md"
    good = "[x](b.md#its-own-heading-really) [y](https://c.d) `[z](code)`\n```\n[z](code)\n```\n"
    page.write_text(f"{good}[1](c.md) [2](b.md#its-own-heading) [3](#none)")
    assert list(broken(page)) == ["c.md", "b.md#its-own-heading", "#none"]


def test_files_of_code_that_pages_name_are_there():
    """`training/diffusion/task.py` is one of the package, `tests/tiny.py` one of the repository."""
    named = {}
    for path in (path for path in PAGES if path.name != "CHANGELOG.md"):  # which tells of the past
        for file in re.findall(r"`([\w-]+(?:/[\w-]+)+\.py)`", path.read_text(encoding="utf-8")):
            named[file] = path
    absent = {
        file: path.name
        for file, path in named.items()
        if not any((folder / file).is_file() for folder in (ROOT, ROOT / "src" / "latentdiff", path.parent))
    }
    assert len(named) > 30 and absent == {}
