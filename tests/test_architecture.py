"""The order of docs/architecture.md, read from the imports themselves."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "latentdiff"


def layers():
    """Part to its place, from the table of the documentation."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("## Layers")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): place for place, row in enumerate(rows) for name in row.split(",")}


def part_of(module):
    return module.split(".")[1] if "." in module else ""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("latentdiff."):
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.module == "latentdiff":
            yield from (f"latentdiff.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("latentdiff."))


def test_modules_import_only_from_above():
    order = layers()
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        assert part in order, f"docs/architecture.md does not name {part}"
        for module in imports(path):
            target = part_of(module)
            if target in order:
                assert order[target] <= order[part], f"{relative} imports {module} from below"


def test_no_import_cycles():
    names = {".".join(("latentdiff", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in PACKAGE.rglob("*.py")}
    graph = {name: [m for m in imports(path) if m in names] for name, path in names.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"import cycle: {' -> '.join([*path, name])}"
        if name not in done:
            path.append(name)
            for target in graph[name]:
                visit(target)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)


def test_files_stay_short():
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    assert max(lengths.values()) <= 400
