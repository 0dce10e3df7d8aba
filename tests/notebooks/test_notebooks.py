"""The notebooks run from their first cell to their last, at small size, and are kept without results."""

import ast
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {"STEPS": 2, "SAMPLING_STEPS": 1, "COUNT": 4}  # in place of what the cells say


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code(path):
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def small(cell):
    """The cell with the numbers of SMALL, which it gives to names in capitals."""
    tree = ast.parse(cell)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and re.fullmatch("[A-Z_, ]+", ast.unparse(node.targets[0]).strip("()")):
            target = node.targets[0]
            names = [name.id for name in (target.elts if isinstance(target, ast.Tuple) else [target])]
            values = [ast.Constant(SMALL[name]) for name in names]
            node.value = ast.Tuple(values, ast.Load()) if isinstance(target, ast.Tuple) else values[0]
    return ast.unparse(ast.fix_missing_locations(tree))


def test_there_are_three():
    assert [path.stem for path in BOOKS] == ["convert", "sample", "train"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_no_results_are_kept(path):
    for cell in read(path)["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
    assert read(path)["nbformat"] == 4 and len({cell["id"] for cell in read(path)["cells"]}) == len(read(path)["cells"])


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_cells_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install, *cells = code(path)
    assert install == "%pip install -q -c ../constraints.txt .."
    names = {"__name__": "__main__"}
    for cell in cells:
        exec(compile(small(cell), path.name, "exec"), names)
