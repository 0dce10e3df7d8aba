"""The documentation as a site: ``sphinx-build -W -c docs/site . build/site`` in the repository's folder.

The sources are the pages as they lie in the repository, so that a link that leads somewhere on a forge leads there on
the site, too. What is only of the site is made here: the navigation, a page of reference for each module that has
public names, the map of imports, and llms.txt.
"""

import importlib
import inspect
import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

sys.path.insert(0, str(Path(__file__).parent))
from import_map import draw

import latentdiff

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "latentdiff"
REFERENCE = ROOT / "docs" / "api"  # made here, and not kept

project = "latentdiff"
author = "The latentdiff authors"
release = latentdiff.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
NAVIGATION = {
    "Begin": [
        "docs/start", "docs/tasks", "docs/builtin", "docs/demo", "docs/cli", "docs/from-diffusers",
        "docs/from-original", "docs/faq",
    ],
    "Sample": ["docs/schedulers", "docs/guidance", "docs/caching", "docs/compile", "docs/viz"],
    "Train": ["docs/data", "docs/training", "examples/README", "recipes/*/README"],
    "Models": ["src/latentdiff/builtin/*/README", "docs/conversion", "docs/hub"],
    "Measure": [
        "docs/evaluation", "docs/study", "docs/bench", "docs/benchmarks", "docs/scale", "docs/reliability",
    ],
    "Inside": ["docs/paper", "docs/architecture", "docs/extending", "CONTRIBUTING", "CHANGELOG"],
}  # fmt: skip
"""Groups of pages, or patterns of them; a page of docs/ that stands in none comes in the last group, "More"."""
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/api/*.md",
    "examples/*.md",
    "recipes/*/README.md",
    "src/latentdiff/builtin/*/README.md",
]
exclude_patterns = [".*", "build", "dist", "tests", "work", "runs", "data"]

html_theme = "furo"  # its fonts are the system's, and nothing comes from elsewhere
html_title = "latentdiff"
html_show_sphinx = False
html_copy_source = True  # llms.txt leads to them
html_sourcelink_suffix = ""
highlight_language = "text"
myst_heading_anchors = 4
myst_links_external_new_tab = False
default_role = "code"  # a word in single backticks, as all docstrings have them
autodoc_typehints = "description"  # beside what is said of each argument
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88

_kept: dict[str, list[str]] = {}


def modules() -> list[str]:
    """The modules that say by `__all__` which names are public."""
    paths = [
        path for path in PACKAGE.rglob("*.py") if re.search(r"^ *__all__ = ", path.read_text(encoding="utf-8"), re.M)
    ]
    parts = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in sorted(paths)]
    return sorted(".".join(part for part in names if part != "__init__") for names in parts)


def entry(module: str, name: str) -> str:
    """What autodoc is asked for to describe a public name."""
    found = getattr(importlib.import_module(module), name)
    if inspect.isclass(found) and not found.__module__.startswith("latentdiff"):
        return f".. py:class:: {name}\n   :module: {module}\n\n   That of {found.__module__.partition('.')[0]}.\n"
    if inspect.isclass(found):
        return f".. autoclass:: {module}.{name}\n   :members:\n   :special-members: __call__\n   :show-inheritance:\n"
    return f".. auto{'function' if callable(found) else 'data'}:: {module}.{name}\n"


def page(module: str) -> str:
    """The page of a module: its public names, those of the whole package by the part that they come from."""
    groups: dict[str, list[str]] = {}
    for name in importlib.import_module(module).__all__:
        where = getattr(getattr(importlib.import_module(module), name), "__module__", module)
        group = where.split(".")[1] if module == "latentdiff" and "." in where else ""
        groups.setdefault(group if where.startswith("latentdiff") else "", []).append(name)
    parts = [f"# {module}", f"```{{eval-rst}}\n.. automodule:: {module}\n   :no-members:\n```"]
    for group, names in sorted(groups.items()):
        parts += [f"## {group}"] if group else []
        parts += [f"```{{eval-rst}}\n{entry(module, name)}```" for name in names]
    return "\n\n".join(parts) + "\n"


def write_reference(app: Sphinx, config: object) -> None:
    """Write the pages of the reference, before Sphinx looks which pages there are."""
    REFERENCE.mkdir(exist_ok=True)
    pages = {REFERENCE / f"{module}.md": page(module) for module in modules()}
    for path in set(REFERENCE.glob("*.md")) - pages.keys():
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def groups() -> dict[str, list[Path]]:
    """The navigation, of files."""
    found: dict[str, list[Path]] = {}
    for group, patterns in NAVIGATION.items():
        pages = {pattern: sorted(ROOT.glob(f"{pattern}.md")) for pattern in patterns}
        if missing := [pattern for pattern, paths in pages.items() if not paths]:
            raise ExtensionError(f"NAVIGATION has pages that aren't there: {', '.join(missing)}")
        found[group] = [path for paths in pages.values() for path in paths]
    listed = {path for paths in found.values() for path in paths}
    if more := sorted(set((ROOT / "docs").glob("*.md")) - listed):
        found["More"] = more
    return {**found, "Reference": sorted(REFERENCE.glob("*.md"), key=lambda path: path.stem)}


def add_what_only_the_site_has(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the first page the navigation, the page of the architecture the map of imports, and links to folders a page.

    A forge shows a folder's README.md below its files.
    """
    here = (ROOT / name).parent
    source[0] = re.sub(
        r"\]\(([\w./-]+)\)",
        lambda link: f"]({link[1].rstrip('/')}/README.md)" if (here / link[1] / "README.md").is_file() else link[0],
        source[0],
    )
    if name == root_doc:
        for group, paths in groups().items():
            pages = "\n".join(path.relative_to(ROOT).with_suffix("").as_posix() for path in paths)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {group}\n\n{pages}\n```\n"
    if name == "docs/architecture":
        figure = f'<figure class="import-map">\n{draw(PACKAGE, source[0])}\n</figure>'
        source[0] = source[0].replace("\n## From a prompt", f"\n{figure}\n\n## From a prompt", 1)


def write_index(app: Sphinx, exception: Exception | None) -> None:
    """Write index.html, which servers look for, and llms.txt, which names every page and its source."""
    if exception or app.builder.format != "html":
        return
    out = Path(app.outdir)
    shutil.copyfile(out / "README.html", out / "index.html")
    lines = ["# latentdiff", "", "> Latent diffusion models (Rombach et al. 2022): sample, convert and train them."]
    for group, paths in groups().items():
        lines += ["", f"## {group}", ""]
        for path in paths:
            name = path.relative_to(ROOT).with_suffix("").as_posix()
            lines.append(f"- [{app.env.titles[name].astext()}](_sources/{name}.md)")
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def keep(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep the text below an attribute: napoleon takes what stands before a colon in it for a type."""
    if what in ("attribute", "data", "property"):
        _kept[name] = list(lines)


def put_back(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Put the text back that `keep` kept."""
    lines[:] = _kept.pop(name, lines)


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("autodoc-process-docstring", keep, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", put_back, priority=600)
    app.connect("config-inited", write_reference)
    app.connect("source-read", add_what_only_the_site_has)
    app.connect("build-finished", write_index)
