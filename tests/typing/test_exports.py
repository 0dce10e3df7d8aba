"""The names of the package: those that tools see and those that are imported when they are used are the same."""

import ast
from pathlib import Path

import pytest

import latentdiff

SOURCE = Path(latentdiff.__file__)


def test_type_checkers_see_the_names_that_there_are():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name: alias.asname for node in block.body for alias in node.names}
    assert all(name == exported for name, exported in imported.items())  # `as` makes them names of the package
    assert sorted(imported) == latentdiff.__all__
    for node in block.body:
        for alias in node.names:
            module = latentdiff._MODULE_OF[alias.name]
            assert node.module == module or node.module.startswith(f"{module}."), alias.name


def test_every_name_can_be_imported():
    for name in latentdiff.__all__:
        assert getattr(latentdiff, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        latentdiff.nothing  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (SOURCE.parent / "py.typed").is_file()  # flit puts every file of the package into the wheel
