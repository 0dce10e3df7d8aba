"""Tensors come out of every form of file as they went in, one at a time, and nothing else comes out."""

import argparse
import json
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from latentdiff.errors import CheckpointError, UnsafeCheckpointError
from latentdiff.io.tensor_files import open_tensors

FORMS = ["safetensors", "zip", "legacy"]


def tensors():
    base = torch.arange(24.0).reshape(4, 6)
    return OrderedDict(
        plain=base,
        transposed=base.t(),
        part=base[1:3, ::2],
        whole=torch.arange(5),
        half=torch.randn(3, dtype=torch.float16),
        brain=torch.nn.Parameter(torch.randn(3, dtype=torch.bfloat16)),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
    )


def save(path, state, form, **beside):
    if form == "safetensors":
        save_file({key: tensor.detach().contiguous().clone() for key, tensor in state.items()}, path)
    else:
        content = {"state_dict": state, **beside} if beside else state
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_tensors_come_back(tmp_path, form):
    state = tensors()
    file = open_tensors(save(tmp_path / "model.bin", state, form))
    assert sorted(file.keys()) == sorted(state)
    for key, tensor in state.items():
        found = file.read(key)
        assert file.info(key).dtype == tensor.dtype
        assert file.info(key).shape == tuple(tensor.shape)
        assert torch.equal(found, tensor)
        assert found.is_contiguous()
        assert found.untyped_storage().nbytes() == found.nbytes  # it owns its memory, and no more than that


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_lightning_wrapper(tmp_path, form, monkeypatch):
    """Classes of Lightning's callbacks, and what they keep, are stood in for and forgotten."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    callback = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules[name].ModelCheckpoint = callback
    instance = callback()
    instance.best = np.float32(1.5)
    beside = {"global_step": 7, "epoch": 2, "callbacks": {callback: {"best": np.float64(2)}, "more": instance}}
    path = save(tmp_path / "model.ckpt", tensors(), form, **beside)
    monkeypatch.undo()
    before = set(torch.serialization.get_safe_globals())
    file = open_tensors(path)
    assert set(torch.serialization.get_safe_globals()) == before  # the stubs are known during the call only
    assert file.metadata == {"global_step": 7, "epoch": 2}
    assert torch.equal(file.read("plain"), tensors()["plain"])


def fake_class(monkeypatch, name, *bases):
    """A class of a library that isn't installed."""
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        part = ".".join(parts[:count])
        if part not in sys.modules:
            monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    made = type(attribute, bases or (object,), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], attribute, made, raising=False)
    return made


def omega(monkeypatch):
    """A configuration as OmegaConf pickles it: nodes know their parents, and hold types and default dicts."""
    metadata = fake_class(monkeypatch, "omegaconf.base.ContainerMetadata")()
    vars(metadata).update(ref_type=Any, object_type=dict, key_type=int, resolver_cache=defaultdict(dict, {"a": {}}))
    config = fake_class(monkeypatch, "omegaconf.dictconfig.DictConfig")()
    node = fake_class(monkeypatch, "omegaconf.nodes.AnyNode")()
    vars(node).update(_parent=config, _val=3)
    vars(config).update(_metadata=metadata, _parent=None, _content={"lr": node})
    return config


def attributes(monkeypatch, module="pytorch_lightning.utilities.parsing"):
    """Lightning's dict whose entries are attributes, one within another."""
    kind = fake_class(monkeypatch, f"{module}.AttributeDict", dict)
    return kind(lr=1e-4, inner=kind(names=["a", "b"]), config=omega(monkeypatch))


HYPER_PARAMETERS = {
    "AttributeDict": attributes,
    "AttributeDict of Lightning 2": lambda monkeypatch: attributes(monkeypatch, "lightning.fabric.utilities.data"),
    "OmegaConf": omega,
    "Namespace": lambda monkeypatch: argparse.Namespace(lr=1, root=PurePosixPath("/data")),
    "defaultdict": lambda monkeypatch: defaultdict(list, {"a": [1], "b": {2, 3}}),
    "arrays and types": lambda monkeypatch: [np.arange(3), np.float64(2), dict, list, str, int, None, True],
    "a module of one's own": lambda monkeypatch: fake_class(monkeypatch, "ldm.data.imagenet.Config")(),
}


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("kind", HYPER_PARAMETERS)
def test_hyper_parameters_are_read_over(tmp_path, form, kind, monkeypatch):
    """What Lightning stores beside the weights is stood in for, and the weights are read."""
    beside = {"hyper_parameters": HYPER_PARAMETERS[kind](monkeypatch), "global_step": 7}
    path = save(tmp_path / "model.ckpt", tensors(), form, **beside)
    monkeypatch.undo()
    file = open_tensors(path)
    assert file.metadata == {"global_step": 7}
    assert torch.equal(file.read("plain"), tensors()["plain"])


def test_hyper_parameters_of_omegaconf_itself(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"a": [1, {"b": None}], "c": 1.5, "d": {"e": "x"}})
    path = save(tmp_path / "model.ckpt", tensors(), "zip", hyper_parameters={"config": config, "list": config.a})
    assert torch.equal(open_tensors(path).read("plain"), tensors()["plain"])


def test_attributes_in_the_place_of_methods(tmp_path):
    """An OrderedDict from a file may have attributes called items, keys and get."""
    state = OrderedDict(a=torch.ones(2))
    vars(state).update(itemZ=1, keyZ=2, geZ=3, valueZ=4)
    path = tmp_path / "model.ckpt"
    for content in (state, {"state_dict": state}, {"outer": state}):
        torch.save(content, path, _use_new_zipfile_serialization=False)
        data = path.read_bytes().replace(b"geZ", b"get").replace(b"keyZ", b"keys")
        path.write_bytes(data.replace(b"itemZ", b"items").replace(b"valueZ", b"values"))
        file = open_tensors(path)
        (name,) = file.keys()
        assert name in ("a", "outer.a") and torch.equal(file.read(name), torch.ones(2))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\ud800"])
def test_names_that_are_no_text(tmp_path, name):
    torch.save({name: torch.ones(2)}, tmp_path / "model.ckpt")
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({name: entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for path in (tmp_path / "model.ckpt", tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match="names must be text"):
            open_tensors(path)


def test_a_pickle_whose_name_ends_in_safetensors(tmp_path):
    """torch.load would believe the name."""
    path = save(tmp_path / "model.safetensors", tensors(), "legacy")
    assert torch.equal(open_tensors(path).read("plain"), tensors()["plain"])


@pytest.mark.parametrize("form", ["safetensors", "zip"])
def test_one_tensor_reads_only_its_bytes(tmp_path, form):
    state = {"a": torch.zeros(1000), "b": torch.ones(1000)}
    path = save(tmp_path / "model.bin", state, form)
    file = open_tensors(path)
    data = path.read_bytes()
    ones = torch.ones(1000).numpy().tobytes()
    place = data.index(ones)
    path.write_bytes(data[:place] + b"\xff" * len(ones) + data[place + len(ones) :])
    assert torch.equal(file.read("a"), state["a"])
    with pytest.raises(CheckpointError, match="b holds values that are not finite"):
        file.read("b")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_must_be_finite(bad):
    file = open_tensors({"weight": torch.tensor([1.0, bad])})
    with pytest.raises(CheckpointError, match="weight holds values that are not finite"):
        file.read("weight")


class Gadget:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_code_is_named_and_not_run(tmp_path, form):
    path = save(tmp_path / "model.ckpt", tensors(), form, callbacks=Gadget())
    with pytest.raises(UnsafeCheckpointError, match=r"it names __builtin__\.exec; fetch it again"):
        open_tensors(path)


def header_of(entries, data=b"\0" * 8):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HALF = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header_of(b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2)), "a name stands twice"),
        (header_of({"a": {**ENTRY, "dtype": "F33"}}), "unknown dtype"),
        (header_of({"a": {**ENTRY, "shape": [3]}}), "not as long as its shape"),
        (header_of({"a": {**ENTRY, "shape": [-2]}}), "not a natural number"),
        (header_of({"a": {**ENTRY, "shape": [2**40, 2**40]}}), "not as long as its shape"),
        (header_of({"a": ENTRY, "b": HALF}), "overlap or leave a gap"),
        (header_of({"a": HALF}), "the tensors have 4 bytes, the file 8"),
        (header_of({"a": {**HALF, "data_offsets": [4, 8]}}), "overlap or leave a gap"),
        (header_of({"a": ENTRY, "__metadata__": {"a": 1}}), "metadata is not text"),
        (header_of({"a": ENTRY})[:40], "longer than the file"),
        (header_of(b'{"a":' + b"[" * 100_000), "is damaged"),
        (header_of(b"{" + b"[],[]," * 200_000), "larger than that of any model"),
        (header_of({}, b""), "holds no tensors"),
    ],
)
def test_damaged_safetensors(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_tensors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "holds no tensors"),
        ({"a": 1}, "holds no tensors"),
        ({3: torch.ones(1)}, "names must be text"),
        ({"a": torch.ones(2, 2).to_sparse()}, "only dense real tensors"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "only dense real tensors"),
        ("nowhere.ckpt", "no such file"),
    ],
)
def test_what_is_no_state_dict(source, message):
    with pytest.raises(CheckpointError, match=message):
        open_tensors(source)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated(tmp_path, form):
    path = save(tmp_path / "model.ckpt", tensors(), form)
    data = path.read_bytes()
    for length in (1, 10, len(data) // 4, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            file = open_tensors(path)
            for key in file.keys():  # noqa: SIM118
                file.read(key)


def rewritten(path, order=lambda records: records, changed=None, compression=zipfile.ZIP_STORED):
    """The same archive by another program, which aligns nothing."""
    with zipfile.ZipFile(path) as archive:
        contents = {record.filename.split("/", 1)[1]: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in order(list((contents | (changed or {})).items())):
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("order", [lambda records: records, sorted, lambda records: records[::-1]])
def test_tensors_of_an_archive_that_another_program_has_written(tmp_path, order):
    """torch.load on the meta device reckons where they are, and takes one for another."""
    state = {str(number): torch.full((16,), float(number)) for number in range(12)}
    file = open_tensors(rewritten(save(tmp_path / "model.ckpt", state, "zip"), order))
    assert all(torch.equal(file.read(key), tensor) for key, tensor in state.items())


def test_what_torch_would_divide_by_is_not_read(tmp_path):
    changed = {".storage_alignment": b"0"}  # which ends a process that calls torch.load on the meta device
    file = open_tensors(rewritten(save(tmp_path / "model.ckpt", tensors(), "zip"), changed=changed))
    assert torch.equal(file.read("plain"), tensors()["plain"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changed": {"byteorder": b"big"}}, "written by a big-endian machine"),
        ({"changed": {"data/0": b"x"}}, "data/0 has 1 bytes, 24 x 4 are asked for"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or larger than the file"),
        ({"order": lambda records: [record for record in records if record[0] != "data/1"]}, "is damaged"),
    ],
)
def test_damaged_archives(tmp_path, options, message):
    path = rewritten(save(tmp_path / "model.ckpt", tensors(), "zip"), **options)
    with pytest.raises(CheckpointError, match=message):
        open_tensors(path)


def test_a_record_is_where_the_directory_says(tmp_path):
    path = save(tmp_path / "model.ckpt", tensors(), "zip")
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("model/data/0").header_offset
    data = bytearray(path.read_bytes())
    data[start : start + 2] = b"xx"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not where the directory says"):
        open_tensors(path)
