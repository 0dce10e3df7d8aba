"""The map of imports: which part of the package imports which, drawn from the code."""

import ast
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

CELL, LABEL = 18, 120  # pixels


def layers(text: str) -> dict[str, int]:
    """The parts of the package to their rows of the table in docs/architecture.md, in its order."""
    table = text.split("## Layers")[1].split("## ", maxsplit=1)[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): place for place, row in enumerate(rows) for name in row.split(",")}


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file of it imports from, once for each statement or name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("latentdiff."):
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.module == "latentdiff":
            yield from (f"latentdiff.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("latentdiff."))


def imports(package: Path) -> Counter[tuple[str, str]]:
    """How often a part of the package imports from another one."""
    return Counter(
        (path.relative_to(package).parts[0].removesuffix(".py"), module.split(".")[1])
        for path in package.rglob("*.py")
        for module in imported(path)
    )


def draw(package: Path, text: str) -> str:
    """An SVG: a row for each part, and in it a square under each part that it imports from.

    Args:
        package: The folder of the package.
        text: docs/architecture.md, whose table has the parts in order.
    """
    parts, found = list(layers(text)), imports(package)
    size = LABEL + CELL * len(parts)
    most = max(count for (one, other), count in found.items() if one != other)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" font-size="12" '
        f'font-family="sans-serif" fill="currentColor">',
        "<title>Which part imports from which: a part imports from those to the left of its own column</title>",
    ]
    for place, part in enumerate(parts):
        middle = LABEL + CELL * place + CELL / 2
        lines.append(f'<text x="{LABEL - 6}" y="{middle + 4}" text-anchor="end">{escape(part)}</text>')
        lines.append(f'<text transform="translate({middle + 4} {LABEL - 6}) rotate(-90)">{escape(part)}</text>')
        lines.append(
            f'<path d="M{LABEL} {middle}H{middle}V{LABEL}" fill="none" stroke="currentColor" stroke-opacity="0.12"/>'
        )
    for row, part in enumerate(parts):
        for column, other in enumerate(parts):
            if (count := found[part, other]) and part != other:
                x, y = LABEL + CELL * column + 2, LABEL + CELL * row + 2
                shade = 0.3 + 0.7 * (count / most) ** 0.5
                lines.append(
                    f'<rect x="{x}" y="{y}" width="{CELL - 4}" height="{CELL - 4}" rx="3" fill="#2a6fbb" '
                    f'fill-opacity="{shade:.2f}"><title>{escape(part)} imports from {escape(other)}: '
                    f"{count}</title></rect>"
                )
    return "\n".join([*lines, "</svg>"])
