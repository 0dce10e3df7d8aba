"""The order of docs/architecture.md, read from the imports themselves."""

from pathlib import Path

from import_map import imported, layers

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "latentdiff"


def part_of(module):
    return module.split(".")[1] if "." in module else ""


def test_modules_import_only_from_above():
    order = layers((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        assert part in order, f"docs/architecture.md does not name {part}"
        for module in imported(path):
            target = part_of(module)
            if target in order:
                assert order[target] <= order[part], f"{relative} imports {module} from below"


def test_no_import_cycles():
    names = {".".join(("latentdiff", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in PACKAGE.rglob("*.py")}
    graph = {name: [m for m in imported(path) if m in names] for name, path in names.items()}
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
