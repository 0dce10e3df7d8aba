import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from latentdiff.errors import InputError
from latentdiff.io.generated import read_parameters, readable, write_image

PARAMETERS = {
    "prompt": "ein Äpfelchen 🍎\nzweite Zeile",
    "negative_prompt": "日本",
    "model": "builtin:emoji",
    "seed": 7,
    "steps": 25,
    "scheduler": "ddim",
    "guidance_scale": 5.0,
    "guidance_interval": [0.0, 1.0],
    "size": "64x64",
}


def test_parameters_come_back(tmp_path):
    path = tmp_path / "new" / "a.png"
    write_image(Image.new("RGB", (8, 8), "red"), path, PARAMETERS)
    assert read_parameters(path) == PARAMETERS
    with Image.open(path) as image:
        assert image.convert("RGB").getpixel((3, 3)) == (255, 0, 0)
        assert image.info["parameters"] == (
            "ein Äpfelchen 🍎\nzweite Zeile\nNegative prompt: 日本\n"
            "Steps: 25, Sampler: ddim, CFG scale: 5.0, Seed: 7, Size: 64x64, Model: builtin:emoji"
        )


def test_what_is_absent_is_not_shown():
    assert readable({"seed": 0, "guidance_scale": None}) == "\nSeed: 0"
    assert readable({"prompt": ["a", "b"], "seed": "0-1"}) == "a\nb\nSeed: 0-1"


def test_a_path_that_is_no_unicode_is_embedded(tmp_path):
    write_image(Image.new("L", (4, 4)), tmp_path / "a.png", {"model": "bad\udcff"})
    assert read_parameters(tmp_path / "a.png") == {"model": "bad\udcff"}


def test_a_png_of_another_program_has_none(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert read_parameters(tmp_path / "a.png") is None


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    write_image(Image.new("RGB", (4, 4)), path, {"seed": 1})
    with pytest.raises(OSError):
        write_image(Image.new("HSV", (4, 4)), path, {"seed": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert read_parameters(path) == {"seed": 1}


@pytest.mark.parametrize("text", ["{", "[1]", "null", "{" * 5, "[" * 100_000])
def test_damaged_parameters_are_an_error(tmp_path, text):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("latentdiff", text)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(InputError, match=r"a\.png has damaged generation parameters"):
        read_parameters(tmp_path / "a.png")


@pytest.mark.thorough
def test_an_oversized_text_is_an_error(tmp_path):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("latentdiff", "x" * 10**8, zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    with pytest.raises(InputError, match="cannot be read as a PNG"):
        read_parameters(tmp_path / "a.png")


def test_a_file_that_is_no_such_image_is_an_error(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    write_image(Image.new("RGB", (400, 400)), tmp_path / "cut.png", {})
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    for name in ("a.gif", "cut.png", "none.png", "."):
        with pytest.raises(InputError, match="cannot be read as a PNG"):
            read_parameters(tmp_path / name)


LOSSY = ["a.jpg", "a.jpeg", "a.JPG", "a.webp"]


@pytest.mark.parametrize("name", LOSSY)
def test_parameters_come_back_from_exif(tmp_path, name):
    """As JSON, and in the user's comment the lines that viewers of generated images look for there."""
    smooth = np.linspace(0, 255, 64 * 64, dtype=np.uint8).reshape(64, 64)
    write_image(Image.fromarray(smooth).convert("RGB"), tmp_path / name, PARAMETERS)
    assert read_parameters(tmp_path / name) == PARAMETERS
    with Image.open(tmp_path / name) as image:
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
        assert np.abs(np.asarray(image.convert("L"), int) - smooth).max() <= 4
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == readable(PARAMETERS)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_images_of_other_programs_have_none(tmp_path, name):
    picture, exif = Image.new("RGB", (4, 4)), Image.Exif()
    picture.save(tmp_path / name)
    assert read_parameters(tmp_path / name) is None
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"Nikon\0{}"
    picture.save(tmp_path / name, exif=exif)
    assert read_parameters(tmp_path / name) is None
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"latentdiff\0{"
    picture.save(tmp_path / name, exif=exif)
    with pytest.raises(InputError, match="has damaged generation parameters"):
        read_parameters(tmp_path / name)


def test_parameters_that_are_too_long_for_a_jpeg_are_said_to_be(tmp_path):
    long = {"prompt": ["a dog"] * 20_000}
    with pytest.raises(InputError, match=r"a\.jpg are too long for a JPEG; write a PNG or WebP"):
        write_image(Image.new("RGB", (4, 4)), tmp_path / "a.jpg", long)
    assert not list(tmp_path.iterdir())
    for name in ("a.png", "a.webp"):
        write_image(Image.new("RGB", (4, 4)), tmp_path / name, long)
        assert read_parameters(tmp_path / name) == long
    fits = {"prompt": ["a dog"] * 5_000}  # without the lines for viewers
    write_image(Image.new("RGB", (4, 4)), tmp_path / "a.jpg", fits)
    assert read_parameters(tmp_path / "a.jpg") == fits


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_parameters_are_found_behind_long_texts_and_however_they_are_packed(tmp_path, kind):
    """Programs that save a PNG anew pack its texts in their own way."""
    text = b'{"seed": 7}'
    packed = {b"tEXt": text, b"zTXt": b"\0" + zlib.compress(text), b"iTXt": b"\1\0\0\0" + zlib.compress(text)}
    whole = b""
    for name, data in (
        (kind, b"latentdiff\0" + packed[kind]),
        (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(10**7))),
    ):
        whole = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) + whole
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:33] + whole + content[33:])
    assert read_parameters(tmp_path / "a.png") == {"seed": 7}


@pytest.mark.parametrize(("name", "most"), [("a.webp", 16_383), ("a.jpg", 65_500)])
def test_an_image_that_is_too_large_for_its_kind(tmp_path, name, most):
    write_image(Image.new("RGB", (most, 1)), tmp_path / name, {"seed": 1})
    with pytest.raises(InputError, match=rf"{name} would have {most + 1}x1 pixels; .* write a PNG"):
        write_image(Image.new("RGB", (most + 1, 1)), tmp_path / name, {"seed": 2})
    assert read_parameters(tmp_path / name) == {"seed": 1}
