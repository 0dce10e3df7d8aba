"""Every kind of image file: the right pixels or one line of InputError, and nothing on stderr."""

import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.io.images import MAX_PIXELS, centre_square, load_image, to_tensor, upright_size


@pytest.fixture(autouse=True)
def nothing_on_stderr(capfd):
    """Warnings are errors, and what C libraries print shows too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert capfd.readouterr().err == ""


def gradient(width=8, height=6):
    """An RGB image of which no two pixels are equal."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 30, y * 40, (x + 8 * y) * 5], axis=-1).astype(np.uint8)


def pixels(path):
    image = load_image(path)
    assert image.mode == "RGB"
    return np.array(image)


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_files_give_their_pixels(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(gradient()), **options)
    assert np.array_equal(pixels(path), gradient())


def test_transparency_lies_on_white(tmp_path):
    alpha = np.array([[0, 51, 255]], np.uint8)
    red = np.dstack([np.full_like(alpha, 200), np.zeros((1, 3, 2), np.uint8), alpha])
    expected = [[[255, 255, 255], [244, 204, 204], [200, 0, 0]]]
    assert pixels(save(tmp_path / "rgba.png", Image.fromarray(red))).tolist() == expected
    grey = np.dstack([np.full_like(alpha, 100), alpha])
    assert pixels(save(tmp_path / "la.png", Image.fromarray(grey)))[0, :, 0].tolist() == [255, 224, 100]


@pytest.mark.parametrize("transparency", [None, 1, b"\xff\x00\xff"])
def test_palettes_with_and_without_transparency(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    options = {} if transparency is None else {"transparency": transparency}
    middle = [40, 50, 60] if transparency is None else [255, 255, 255]
    assert pixels(save(tmp_path / "p.png", image, **options)).tolist() == [[[10, 20, 30], middle, [70, 80, 90]]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_is_scaled(tmp_path, suffix):
    values = np.array([[0, 257, 1000, 32896, 65535]], np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    assert pixels(path)[0].tolist() == [[v, v, v] for v in (0, 1, 4, 128, 255)]


def test_sixteen_bit_transparent_grey_is_white(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(np.array([[0, 1000, 2000]], np.uint16)), transparency=1000)
    assert pixels(path)[0, :, 0].tolist() == [0, 255, 8]


def test_floats_and_wide_integers_only_where_the_scale_is_plain(tmp_path):
    unit = save(tmp_path / "unit.tif", Image.fromarray(np.array([[0, 0.5, 1]], np.float32)))
    assert pixels(unit)[0, :, 0].tolist() == [0, 128, 255]
    for values in (np.array([[0, 300.0]], np.float32), np.array([[0, np.nan]], np.float32), np.array([[-1, 70000]])):
        path = save(tmp_path / "wide.tif", Image.fromarray(values.astype(np.int32 if values.dtype == int else "f4")))
        with pytest.raises(InputError, match="can be scaled"):
            load_image(path)


def test_cmyk_is_converted(tmp_path):
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(save(tmp_path / "a.tif", ink)) - np.array([255, 0, 0])).max() == 0
    assert np.abs(pixels(save(tmp_path / "a.jpg", ink, quality=95)).astype(int) - [255, 0, 0]).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The viewer's picture: what stood upright before the camera was turned."""
    turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that a camera would do
    upright = Image.fromarray(gradient())
    stored = upright if turns[orientation] is None else upright.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", stored, exif=exif)
    assert np.array_equal(pixels(path), gradient())
    with Image.open(path) as opened:
        assert np.array_equal(np.array(load_image(opened)), gradient())


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_an_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert pixels(path)[0, 0].tolist() == [255, 0, 0]


def test_a_phones_two_pictures_in_one_file_give_the_first(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    save(tmp_path / "a.jpg", frames[0], format="MPO", save_all=True, append_images=frames[1:])
    assert np.abs(pixels(tmp_path / "a.jpg").astype(int) - [255, 0, 0]).max() <= 3


def test_one_pixel(tmp_path):
    assert pixels(save(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def png_of(width, height, rows=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def fails(path):
    with pytest.raises(InputError) as caught:
        load_image(path)
    message = str(caught.value)
    assert "\n" not in message and path.name in message
    return message


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(9600, 9600), (11000, 11000), (14000, 14000), (60000, 60000), (2**31 - 1, 1)])
def test_decompression_bombs_are_refused_before_decoding(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(*size))
    message = fails(path)
    assert str(MAX_PIXELS) in message or size[0] * size[1] <= MAX_PIXELS


@pytest.mark.thorough
def test_text_and_profile_bombs(tmp_path):
    packed = zlib.compress(b"a" * 2**27)
    for kind in (b"zTXt", b"iCCP"):
        data = b"name\0\0" + packed
        chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        path = tmp_path / "bomb.png"
        whole = png_of(1, 1, b"\0\1\2\3")
        path.write_bytes(whole[:33] + chunk + whole[33:])
        try:
            assert pixels(path).tolist() == [[[1, 2, 3]]]
        except InputError:
            fails(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm", "jp2", "lzw.tif"])
def test_truncated_and_damaged_files_are_one_line(tmp_path, suffix):
    """Cut anywhere, and with bytes changed anywhere: pixels or one line."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    options = {"compression": "tiff_lzw"} if suffix == "lzw.tif" else {}
    whole = save(tmp_path / f"whole.{suffix}", Image.fromarray(noise), **options).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    fails(path)
    random = np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, min(len(damaged), 400), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            pixels(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_what_is_no_image(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "folder.png").mkdir()
    for name in ("empty.png", "text.png", "page.eps"):
        assert "not an image of a known kind; known: PNG" in fails(tmp_path / name)
    assert re.search("directory", fails(tmp_path / "folder.png"))
    assert "No such file" in fails(tmp_path / "missing.png")
    with pytest.raises(InputError, match="has 0x3 pixels"):
        load_image(Image.new("RGB", (0, 3)))


def test_centre_square_and_tensor():
    picture = Image.fromarray(gradient(8, 6))
    assert np.array_equal(np.array(centre_square(picture, 6).size), (6, 6))
    assert np.array_equal(np.array(centre_square(picture, 6)), gradient(8, 6)[:, 1:7])
    tensor = to_tensor(picture)
    assert tensor.shape == (3, 6, 8) and tensor[0, 0, 0] == -1 and tensor[0, 0, 7] == np.float32(210 / 127.5 - 1)


def png_with(path, image, *chunks):
    """A PNG with further chunks (kind, data) before the pixels."""
    image.save(path)
    whole = path.read_bytes()
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(whole[:33] + made + whole[33:])
    return path


TEXT = b"a workflow of many nodes, " * 120_000  # 3 MB
LONG_CHUNKS = {
    "text": [(b"tEXt", b"prompt\0" + TEXT)],
    "packed text": [(b"zTXt", b"parameters\0\0" + zlib.compress(TEXT))],
    "international text": [(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(TEXT))],
    "many texts": [(b"tEXt", b"prompt\0" + TEXT)] * 24,
    "colour profile": [(b"iCCP", b"scanner\0\0" + zlib.compress(TEXT))],
    "damaged text": [(b"iTXt", b"prompt\0\1\0\0\0nonsense")],
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", LONG_CHUNKS)
def test_pictures_with_long_texts_or_profiles_are_read(tmp_path, name):
    """As ComfyUI and its like write them, and scanners with large profiles; their sizes are read, too."""
    path = png_with(tmp_path / "a.png", Image.fromarray(gradient()), *LONG_CHUNKS[name])
    assert np.array_equal(pixels(path), gradient())
    assert upright_size(path) == (6, 8)


def test_a_picture_with_a_long_text_is_turned_as_its_other_chunks_say(tmp_path):
    stored = Image.fromarray(gradient()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>'
    for chunks in ([(b"eXIf", exif.tobytes()[6:])], [(b"iTXt", xmp)]):
        for long in ([], LONG_CHUNKS["packed text"], LONG_CHUNKS["colour profile"]):
            path = png_with(tmp_path / "a.png", stored, *long, *chunks)
            assert np.array_equal(pixels(path), gradient())
            assert upright_size(path) == (6, 8)


def test_texts_do_not_hide_damage(tmp_path):
    path = png_with(tmp_path / "a.png", Image.fromarray(gradient(80, 60)), *LONG_CHUNKS["packed text"])
    path.write_bytes(path.read_bytes()[:-40])
    fails(path)
    path = png_with(tmp_path / "b.png", Image.new("F", (2, 2)).convert("L"), *LONG_CHUNKS["packed text"])
    assert pixels(path).shape == (2, 2, 3)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (POINTER, "a pointer of Git LFS, in place of the file itself; fetch the file with git lfs pull"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC or AVIF image"),
        (b"8BPS" + bytes(99), "a Photoshop image"),
        (b"<!DOCTYPE html><html>", "a web page, such as a login or an error; fetch the file again"),
    ],
)
def test_other_files_in_place_of_images_are_called_what_they_are(tmp_path, content, what):
    (tmp_path / "x.jpg").write_bytes(content)
    assert f"; it is {what}" in fails(tmp_path / "x.jpg")


@pytest.mark.parametrize("content", [b"", bytes(99), b"\x89PNG\r\n\x1a\n"])
def test_what_is_unknown_or_damaged_is_called_nothing_else(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    assert "; it is" not in fails(tmp_path / "x.png")
