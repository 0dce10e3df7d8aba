"""Tensors come out of every form of file as they went in, one at a time, and nothing else comes out."""

import json
import sys
import types
import zipfile
from collections import OrderedDict

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
        ("nowhere.ckpt", "is not a file"),
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
