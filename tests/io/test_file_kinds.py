"""What people give in place of a checkpoint is called what it is, in one line, and nothing but a file is opened."""

import gzip
import io
import json
import os
import tarfile
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from latentdiff import DiffusionPipeline
from latentdiff.cli.main import main
from latentdiff.errors import CheckpointError
from latentdiff.io.file_kinds import what_is
from latentdiff.io.headers import read_header
from latentdiff.io.tensor_files import open_tensors


def picture(form):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, form)
    return stream.getvalue()


def zipped(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("model.ckpt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4265380512\n"
FILES = {
    "png": (picture("PNG"), "is a PNG image, not a checkpoint; give a checkpoint"),
    "jpeg": (picture("JPEG"), "is a JPEG image"),
    "gif": (picture("GIF"), "is a GIF image"),
    "webp": (picture("WEBP"), "is a WebP image"),
    "bmp": (picture("BMP"), "is a BMP image"),
    "tiff": (picture("TIFF"), "is a TIFF image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC or AVIF image"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "is a video"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document"),
    "gzip": (gzip.compress(b"model" * 99), "is a gzip archive, not a checkpoint; unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40), "is a 7z archive"),
    "rar": (b"Rar!\x1a\x07\x01\0" + bytes(40), "is a RAR archive"),
    "tar": (tarred(), "is a tar archive, or a file of PyTorch before 0.1.10"),
    "zip with a checkpoint": (
        zipped(config_yaml="x", model_ckpt="y"),
        r"is a zip archive, not a checkpoint \(it has model.ckpt\)",
    ),
    "zip of pictures": (zipped(b_png="x", a_png="y"), r"is a zip archive, not a checkpoint \(it has a.png\); unpack"),
    "empty zip": (zipped(), r"is a zip archive, not a checkpoint \(it has nothing\)"),
    "login page": (b"\n  <!DOCTYPE html>\n<html><head><title>Sign in", "is a web page, such as a login or an error"),
    "page in UTF-16": ("\ufeff<html><body>Not found".encode("utf-16-le"), "is a web page"),
    "error of a bucket": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document"),
    "JSON error": (b'{"error":"Invalid username or password."}', "is JSON text, perhaps an error of the server"),
    "JSON with a brace at its ninth byte": (b'{"data":{"status": 404}}', "is JSON text"),
    "a message": (b"Access to this file is restricted. You must be authenticated.\n", "is text, not a checkpoint"),
    "a configuration": (b"model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n", "is YAML, a configuration"),
    "LFS pointer": (LFS, "is a pointer of Git LFS, in place of the file itself, not a checkpoint; fetch the file"),
    "annex pointer": (b"/annex/objects/MD5E-s4265--d41d8c.ckpt\n", "is a pointer of git-annex"),
    "torrent": (b"d8:announce35:udp://tracker.example.org:80", "is a torrent"),
    "empty": (b"", "is empty; fetch it again"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_each_is_called_what_it_is(tmp_path, name, suffix):
    content, message = FILES[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_tensors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert what_is(content[:1024]) is None or name != "empty"


@pytest.mark.parametrize("name", ["png", "zip with a checkpoint", "login page", "LFS pointer"])
def test_every_way_in_says_so(tmp_path, capsys, name):
    content, message = FILES[name]
    path = tmp_path / "model"  # no suffix says that it is a checkpoint
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        DiffusionPipeline.from_original(path)
    for command in (["info", str(path)], ["convert", str(path), str(tmp_path / "out")]):
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message.split(",")[0].split(" (")[0].replace("\\", "") in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_real_checkpoints_are_none_of_these(tmp_path):
    """Headers of any length, whose first bytes may be those of another format."""
    tensors = {"a": torch.ones(2), "b": torch.arange(3)}
    for count in range(200):
        save_file(tensors, tmp_path / "model.safetensors", metadata={"note": "x" * 8 * count})
        assert sorted(open_tensors(tmp_path / "model.safetensors").keys()) == ["a", "b"]
    for form in (True, False):
        torch.save(tensors, tmp_path / "model.ckpt", _use_new_zipfile_serialization=form)
        assert open_tensors(tmp_path / "model.ckpt").keys() == ["a", "b"]
        assert what_is((tmp_path / "model.ckpt").read_bytes()[:1024]) is None


def test_a_header_whose_length_reads_as_a_program(tmp_path):
    """A safetensors header of 0x5a4d bytes makes a file begin with "MZ", as programs do."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    length = int.from_bytes(b"MZ", "little")
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text.ljust(length) + bytes(4))
    assert open_tensors(path).keys() == ["a"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("modle.ckpt", "no such file: .*modle.ckpt; did you mean 'model.ckpt'"),
        ("sub/model.ckpt", "no such file: .*; there is no folder"),
        ("other.safetensors", "no such file: .*; give an existing path"),
        ("model.ckpt/inside.ckpt", "no such file"),
    ],
)
def test_mistyped_paths(tmp_path, capsys, monkeypatch, given, message):
    torch.save({"a": torch.ones(2)}, tmp_path / "model.ckpt")
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / given, given):
        with pytest.raises(CheckpointError, match=message):
            open_tensors(path)
    for command in (["info", given], ["convert", given, "out"]):
        assert main(command) == 2
        assert "no such file" in capsys.readouterr().err


def test_folders_pipes_and_devices_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")  # opening it would wait for a writer, forever
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "pipe.safetensors")
    cases = {
        tmp_path / "pipe.safetensors": "is a pipe or a device",
        tmp_path / "link.ckpt": "is a pipe or a device",
        tmp_path: "is a folder, not a file",
    }
    if os.path.exists("/dev/zero"):
        cases["/dev/zero"] = "is a pipe or a device"
    for path, message in cases.items():
        for read in (open_tensors, DiffusionPipeline.from_original):
            with pytest.raises(CheckpointError, match=message):
                read(path)
    with pytest.raises(CheckpointError, match="is a pipe or a device"):
        read_header(tmp_path / "pipe.safetensors")


def test_dangling_links_and_null_characters(tmp_path):
    (tmp_path / "link.ckpt").symlink_to(tmp_path / "gone.ckpt")
    with pytest.raises(CheckpointError, match="no such file"):
        open_tensors(tmp_path / "link.ckpt")
    with pytest.raises(CheckpointError, match="null character"):
        open_tensors("model\0.ckpt")
