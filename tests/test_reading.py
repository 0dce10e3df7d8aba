"""Files, JSON and YAML as people and attackers have them: the value, or one error soon."""

import math
import os
import socket

import pytest
import yaml

from latentdiff.config import load_recipe
from latentdiff.conversion.nodes import read_config
from latentdiff.data.options import DataOptions
from latentdiff.errors import BadFileError, ConfigError, LatentDiffError
from latentdiff.io.arrays import read_values, size_of
from latentdiff.io.generated import read_parameters
from latentdiff.io.images import load_image, upright_size
from latentdiff.io.inputs import read_mask
from latentdiff.io.label_maps import read_label_map
from latentdiff.io.stored import TarMember, read_into_memory
from latentdiff.models.tokenizer import load_tokenizer
from latentdiff.reading import open_file, parse_json, parse_yaml, read_text
from latentdiff.training.engine.options import OptimizerOptions
from latentdiff.training.recipes import DiffusionRecipe

READERS = {
    "image": load_image,
    "size": upright_size,
    "array": lambda path: read_values(path, 1),
    "size of an array": size_of,
    "mask": read_mask,
    "label map": lambda path: read_label_map(path, 3),
    "bytes": read_into_memory,
    "member of a tar file": lambda path: load_image(TarMember(path, "x.png", 0, 10)),
    "parameters": read_parameters,
    "recipe": lambda path: load_recipe(DiffusionRecipe, path),
    "an original's configuration": read_config,
    "vocabulary": lambda path: load_tokenizer(path, 77),
}


@pytest.fixture(params=["pipe", "device", "socket", "folder", "link to a pipe", "file of the system"])
def not_a_file(request, tmp_path, monkeypatch):
    """A path at which a reader would wait, never end, or get no file's bytes."""
    monkeypatch.chdir(tmp_path)  # names of sockets must be short
    path = tmp_path / "x"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "link to a pipe":
        os.mkfifo(tmp_path / "pipe")
        path.symlink_to("pipe")
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("x")
    elif request.param == "folder":
        path.mkdir()
    else:
        path.symlink_to("/proc/self/maps")
    if not path.exists():
        pytest.skip("this system has none")
    return path


@pytest.mark.parametrize("reader", READERS)
def test_only_regular_files_are_read(reader, not_a_file):
    with pytest.raises(LatentDiffError, match=r"it is a \w+|Is a directory") as caught:
        READERS[reader](not_a_file)
    assert "\n" not in str(caught.value) and str(not_a_file) in str(caught.value)


def test_files_are_read_through_links_and_whatever_their_names(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    (tmp_path / "link").symlink_to(path)
    assert read_text(path) == read_text(tmp_path / "link") == "one\ntwo\n"
    with open_file(path) as file:
        assert file.name == str(path) and file.read(3) == b"\xef\xbb\xbf"
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "missing")


ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
WRONG_YAML = {
    "describes more than 100000 values": ALIASES,
    "too deeply|more than": "a: &a [*a]",
    "nested too deeply": "[" * 1000,
    "it is nested too deeply": "x: " + "[" * 65 + "]" * 65,
    "too deeply": "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100))]),
    "Exceeds the limit": "seed: " + "9" * 5000,
    "'seed' stands twice in one mapping": "seed: 1\ndata: {}\nseed: 2",
    "day is out of range|must be in": "when: 2001-02-31",
    "invalid literal": "x: !!int abc",
    "could not determine a constructor": "x: !!python/object/apply:os.system [ls]",
    "at most 1048576 are read": "x: " + "y" * 2**20,
    "special characters": "x: \1",
}


@pytest.mark.parametrize("message", WRONG_YAML)
def test_yaml_that_is_refused(tmp_path, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(WRONG_YAML[message])
    (tmp_path / "recipe.yaml").write_text(WRONG_YAML[message])
    with pytest.raises(ConfigError, match=rf"^recipe .*recipe\.yaml is not YAML: .*({message})") as caught:
        load_recipe(DiffusionRecipe, tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


def test_yaml_with_aliases_as_people_use_them():
    text = "base: &base {lr: 1.0e-4, steps: 10}\nrun: {<<: *base, steps: 20}\nother: *base\nnone:\n"
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml("") is None


@pytest.mark.parametrize("flag", ["[" * 500, ALIASES, "{a: 1, a: 2}"])
def test_flags_have_the_same_limits(flag):
    with pytest.raises(ConfigError, match=r"value_range is"):
        load_recipe(DataOptions, None, {"value_range": flag})


@pytest.mark.parametrize("value", [".nan", ".inf", "nan", "1e9999", "1" + "0" * 400, "9" * 5000])
def test_numbers_that_are_none_are_no_options(tmp_path, value):
    (tmp_path / "recipe.yaml").write_text(f"value_range: [0, {value}]\n")
    with pytest.raises(ConfigError, match=r"value_range is|Exceeds the limit"):
        load_recipe(DataOptions, tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match="value_range is"):
        load_recipe(DataOptions, None, {"value_range": f"[0, {value}]"})


def test_only_options_that_have_a_meaning_for_it_are_infinite(tmp_path):
    for text in (".inf", "inf"):
        (tmp_path / "recipe.yaml").write_text(f"max_grad_norm: {text}\n")
        assert load_recipe(OptimizerOptions, tmp_path / "recipe.yaml").max_grad_norm == math.inf
    for name, value in (("max_grad_norm", "nan"), ("learning_rate", "inf"), ("learning_rate", "nan")):
        with pytest.raises(ConfigError, match=rf"{name} is '?{value}'?; it must be"):
            load_recipe(OptimizerOptions, None, {name: value})
        with pytest.raises(ConfigError, match=rf"{name} is {value}; it must be"):
            OptimizerOptions(**{name: float(value)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "1e999 is too large"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice in one object"),
        ('{"a": 1', "Expecting"),
        ("", "Expecting value"),
    ],
)
def test_json_that_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_json_that_is_read():
    assert parse_json('{"a": [1, 2.5, 1e308, null, true], "b": {"a": "x"}}') == {
        "a": [1, 2.5, 1e308, None, True],
        "b": {"a": "x"},
    }


def test_a_file_that_is_larger_than_any_text_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "recipe.yaml", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="it has 1099511627776 bytes, and at most 1073741824 are read"):
        load_recipe(DiffusionRecipe, tmp_path / "recipe.yaml")


def test_a_file_that_is_larger_than_any_image_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadFileError, match="has 1099511627776 bytes; at most"):
        read_into_memory(tmp_path / "x.png")


@pytest.mark.parametrize(
    "reader", ["image", "size", "mask", "label map", "recipe", "vocabulary", "an original's configuration"]
)
def test_a_pointer_of_git_lfs_is_called_that_by_every_reader(tmp_path, reader):
    (tmp_path / "x.yaml").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    with pytest.raises(LatentDiffError, match=r"x\.yaml .*it is a pointer of Git LFS.* git lfs pull"):
        READERS[reader](tmp_path / "x.yaml")


def test_a_text_about_git_lfs_is_no_pointer(tmp_path):
    (tmp_path / "x.txt").write_text("the version of https://git-lfs.github.com/spec/v1\n")
    assert read_text(tmp_path / "x.txt").startswith("the version")
