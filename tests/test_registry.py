import subprocess
import sys

import pytest

from latentdiff.errors import ConfigError
from latentdiff.registry import PIPELINES, SCHEDULERS, Registry, load_plugins, nearest


def fruit():
    return Registry("fruit", {"apple": "builtins:int", "pear": "builtins:str"})


def test_an_entry_is_imported_when_first_asked_for():
    assert fruit().get("apple") is int


def test_a_registered_entry_is_found():
    registry = fruit()

    @registry.register("plum")
    class Plum:
        pass

    assert registry.get("plum") is Plum
    assert registry.names() == ["apple", "pear", "plum"]
    assert "plum" in registry
    assert "apple" in registry
    assert "fig" not in registry


@pytest.mark.parametrize("name", ["apple", "plum"])
def test_a_name_that_is_taken_is_an_error(name):
    registry = fruit()
    registry.register("plum")(float)
    with pytest.raises(ConfigError, match=f"^fruit '{name}' is registered already; choose another name$"):
        registry.register(name)(float)


def test_an_unknown_name_lists_its_neighbours():
    with pytest.raises(ConfigError, match=r"^unknown fruit 'aple'; did you mean 'apple' or 'pear'\?$"):
        fruit().get("aple")


def test_an_unknown_name_without_neighbours_lists_all():
    assert nearest("zzz", ["b", "a"]) == "known: a, b"


@pytest.mark.parametrize(
    ("registry", "name"), [(registry, name) for registry in (SCHEDULERS, PIPELINES) for name in registry.names()]
)
def test_every_built_in_name_has_a_class(registry, name):
    assert isinstance(registry.get(name), type)


def test_names_import_nothing():
    code = (
        "import sys; from latentdiff.registry import SCHEDULERS; SCHEDULERS.names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plugins_are_imported_on_request(tmp_path, monkeypatch):
    (tmp_path / "fruit_plugin.py").write_text("loaded = True\n")
    info = tmp_path / "fruit_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fruit-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[latentdiff.plugins]\nfruit = fruit_plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "fruit" in load_plugins()
    assert sys.modules.pop("fruit_plugin").loaded
