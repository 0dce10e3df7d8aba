"""TIFFs as scanners, microscopes and cameras write them: white may be zero, and the picture may lie on its side."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from latentdiff.errors import BadFileError, InputError
from latentdiff.io.arrays import count_channels, read_values, size_of
from latentdiff.io.images import load_image, upright_size
from latentdiff.io.inputs import read_image, read_mask
from latentdiff.io.label_maps import read_label_map

RAMP = np.linspace(0, 1, 24).reshape(4, 6)
MOST = {"bool": 1, "uint8": 255, "uint16": 65535, "uint32": 2**32 - 1, "float16": 1, "float32": 1, "float64": 1}
DEPTH = {"bool": 0.5, "uint8": 0.5 / 255, "float16": 2**-11}  # the largest error of rounding


def stored(dtype):
    values = RAMP * MOST[dtype]
    return (values >= 0.5) if dtype == "bool" else values.astype(dtype)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", MOST)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_white_is_zero_at_every_depth(tmp_path, dtype, byteorder, photometric):
    tifffile.imwrite(tmp_path / "x.tif", stored(dtype), photometric=photometric, byteorder=byteorder)
    brightness = stored(dtype).astype(float) / MOST[dtype]
    brightness = 1 - brightness if photometric == "miniswhite" else brightness
    found = (read_values(tmp_path / "x.tif", 1)[..., 0] + 1) / 2
    assert np.abs(found - brightness).max() <= DEPTH.get(dtype, 2**-16)
    in_three = (read_values(tmp_path / "x.tif", 3) + 1) / 2
    assert in_three.shape == (4, 6, 3) and np.abs(in_three - brightness[..., None]).max() <= 1 / 255


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "float32"])
def test_white_is_zero_for_what_commands_and_pipelines_read(tmp_path, dtype):
    """8 bits as `load_image` gives them, a mask whose holes are what looks white, and no guess about class numbers."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, stored(dtype), photometric="miniswhite")
    brightness = 1 - stored(dtype).astype(float) / MOST[dtype]
    with Image.open(path) as opened:
        for given in (path, opened):
            shown = np.asarray(load_image(given))[..., 0]
            assert np.abs(shown - brightness * 255).max() <= 0.51
            assert np.array_equal(read_mask(given)[0].numpy(), shown >= 128)
            assert np.abs(read_image(given, channels=1)[0].numpy() - (brightness * 2 - 1)).max() <= 1 / 255
    with pytest.raises(InputError, match="0 is white, so that its class numbers are open; give a PNG"):
        read_label_map(path, 256)


def test_the_ends_of_a_value_range_change_places_where_white_is_zero(tmp_path):
    """Twelve bits of a radiograph in sixteen."""
    tifffile.imwrite(tmp_path / "x.tif", np.array([[0, 1024, 4096]], np.uint16), photometric="miniswhite")
    assert read_values(tmp_path / "x.tif", 1, (0, 4096))[0, :, 0].tolist() == [1, 0.5, -1]


def test_channels_beside_the_white_one_stay(tmp_path):
    values = np.stack([RAMP, RAMP], axis=-1).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite", extrasamples=[0], planarconfig="contig")
    found = read_values(tmp_path / "x.tif", 2)
    assert np.allclose(found[..., 0], 1 - 2 * RAMP, atol=1e-6) and np.allclose(found[..., 1], 2 * RAMP - 1, atol=1e-6)


def test_a_label_map_of_a_usual_tiff_is_read(tmp_path):
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6)
    tifffile.imwrite(tmp_path / "x.tif", numbers, photometric="minisblack")
    assert np.array_equal(read_label_map(tmp_path / "x.tif", 24).numpy(), numbers)
    tifffile.imwrite(tmp_path / "f.tif", numbers.astype(np.float32), photometric="minisblack")
    with pytest.raises(InputError, match=r"f\.tif holds floats; give integers"):
        read_label_map(tmp_path / "f.tif", 24)


TURNS = {  # the EXIF orientation to what a viewer does with the stored pixels
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, 1),
}
EIGHT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["8 bits", "compressed", "16 bits", "5 channels", "planes", "32 bits"])
def test_a_turned_tiff_stands_upright(tmp_path, orientation, kind):
    path, tags = tmp_path / "x.tif", [(274, 3, 1, orientation, True)]
    if kind == "compressed":
        Image.fromarray(EIGHT).save(path, compression="tiff_lzw", tiffinfo={274: orientation})
    else:
        values = {"16 bits": EIGHT.astype(np.uint16) * 257, "32 bits": EIGHT.astype(np.uint32) * 0x1010101}
        values = values.get(kind, EIGHT)
        layout = {"photometric": "minisblack"}
        if kind in ("5 channels", "planes"):
            values = np.stack([EIGHT] * 5, axis=0 if kind == "planes" else -1)
            layout["planarconfig"] = "separate" if kind == "planes" else "contig"
        tifffile.imwrite(path, values, extratags=tags, **layout)
    right = TURNS[orientation](EIGHT)
    channels = 5 if kind in ("5 channels", "planes") else 1
    found = read_values(path, channels)
    assert size_of(path) == right.shape == found.shape[:2]
    assert np.abs(found - (right / 127.5 - 1)[..., None]).max() <= 1e-6
    if kind in ("8 bits", "compressed"):
        assert np.array_equal(read_label_map(path, 256).numpy(), right)
        assert np.array_equal(np.asarray(load_image(path))[..., 0], right)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 5, 6, 8, 9])
def test_size_and_pixels_agree_for_every_kind(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(EIGHT).save(path, exif=exif)
    shown = load_image(path)
    assert size_of(path) == upright_size(path) == (shown.height, shown.width)
    assert (shown.width < shown.height) == (orientation in (5, 6, 7, 8))


def test_the_first_page_is_the_picture_and_channels_on_pages_are_channels(tmp_path):
    pages = np.stack([EIGHT, EIGHT[::-1], EIGHT]).astype(np.uint32) * 0x1010101
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack", metadata={"axes": "QYX"})
    assert size_of(tmp_path / "pages.tif") == (4, 6) and count_channels(tmp_path / "pages.tif") == 1
    assert np.abs(read_values(tmp_path / "pages.tif", 1)[..., 0] - (EIGHT / 127.5 - 1)).max() <= 1e-6
    layout = {"tile": (16, 16), "photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "tiles.tif", np.stack([EIGHT] * 5, axis=-1), **layout)
    assert read_values(tmp_path / "tiles.tif", 5).shape == (4, 6, 5)


def test_integers_of_many_bits_whose_range_is_open_need_a_value_range(tmp_path):
    """Sixteen bits in thirty-two are common, and would be black."""
    tifffile.imwrite(tmp_path / "x.tif", np.array([[0, 32768, 65536 - 1]], np.uint32), photometric="minisblack")
    with pytest.raises(BadFileError, match="uint32 from 0 to 65535; give value_range"):
        read_values(tmp_path / "x.tif", 1)
    assert read_values(tmp_path / "x.tif", 1, (0, 65536))[0, :2, 0].tolist() == [-1, 0]


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_limits_come_before_decoding(tmp_path, channels, dtype):
    """Files of some bytes that say to hold thousands of megapixels."""
    path = tmp_path / "x.tif"
    layout = {"planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(path, np.zeros((4, 6, channels)[: 2 + bool(layout)], dtype), photometric="minisblack", **layout)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[name].overwrite(40_000)
    for read in (lambda: read_values(path, channels), lambda: size_of(path), lambda: count_channels(path)):
        with pytest.raises(BadFileError, match=r"x\.tif has (40000x40000|too many) pixels"):
            read()


def twelve_bits(path, values, photometric):
    """A TIFF that packs two values into three bytes, as radiographs and microscopes do."""
    flat = values.ravel().astype(int)
    packed = bytearray()
    for one, other in zip(flat[::2], flat[1::2], strict=True):
        packed += bytes([one >> 4, (one & 15) << 4 | other >> 8, other & 255])
    entries = [
        (256, 4, values.shape[1]),
        (257, 4, values.shape[0]),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, values.shape[0]),
        (279, 4, len(packed)),
    ]
    directory = struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack("<HHII", tag, kind, 1, value)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(packed)) + bytes(packed) + directory + bytes(4))
    return path


def test_twelve_bits_reach_from_black_to_white(tmp_path):
    """In sixteen they would be a sixteenth as bright."""
    values = np.round(RAMP * 4095)
    path = twelve_bits(tmp_path / "x.tif", values, 1)
    assert np.abs(read_values(path, 1)[..., 0] - (values / 4095 * 2 - 1)).max() <= 1e-6
    assert np.abs(np.asarray(load_image(path))[..., 0] - values / 4095 * 255).max() <= 0.51
    assert np.array_equal(read_label_map(path, 4096).numpy(), values)
    path = twelve_bits(tmp_path / "white.tif", values, 0)
    try:
        found = read_values(path, 1)[..., 0]
    except BadFileError:
        return  # tifffile unpacks twelve bits with imagecodecs only
    assert np.abs(found - (1 - values / 4095 * 2)).max() <= 1e-6


def test_signed_integers_need_a_value_range(tmp_path):
    """Hounsfield units: half of sixteen bits would be half as bright, and negative ones are no error of the file."""
    path = tmp_path / "x.tif"
    for values in ([[0, 1000, 3000]], [[-1000, 1000, 3000]]):
        tifffile.imwrite(path, np.array(values, np.int16), photometric="minisblack")
        with pytest.raises(BadFileError, match=r"int32 from (0|-1000) to 3000; give value_range"):
            read_values(path, 1)
        with pytest.raises(BadFileError, match="signed integers, of which no range is known"):
            load_image(path)
        assert read_values(path, 1, (-1000, 3000))[0, 1:, 0].tolist() == [0, 1]


def test_sixteen_bits_that_pillow_keeps_in_thirty_two(tmp_path):
    Image.fromarray(np.array([[0, 32768, 65535]], np.int32)).save(tmp_path / "x.tif")
    assert np.abs(read_values(tmp_path / "x.tif", 1)[0, :, 0] - np.array([-1, 32768 / 32767.5 - 1, 1])).max() <= 1e-6
