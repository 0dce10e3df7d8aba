"""Images of any channels and depth: each value of each kind of file becomes the number that the module says."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from latentdiff import BadFileError, InputError
from latentdiff.data.images import ImageFolder, Images
from latentdiff.data.records import Records
from latentdiff.data.views import View
from latentdiff.io.arrays import count_channels, read_values, resize_part, size_of, write_values
from latentdiff.io.inputs import read_image

SHAPE = (6, 5)
EIGHT = np.arange(30, dtype=np.uint8).reshape(SHAPE) * 8
DEEP = np.arange(30, dtype=np.uint16).reshape(SHAPE) * 2000 + 7
FLOATS = np.linspace(0, 1, 30, dtype=np.float32).reshape(SHAPE)


def stack(values, count):
    return np.stack([np.roll(values, i) for i in range(count)], axis=-1)


def write(path, values):
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".tif":
        photometric = "rgb" if values.ndim == 3 and values.shape[2] == 3 else "minisblack"
        tifffile.imwrite(path, values, photometric=photometric, planarconfig="contig" if values.ndim == 3 else None)
    else:
        Image.fromarray(values).save(path)
    return path


CASES = {
    "grey 8 bits": ("x.png", EIGHT, 255, 3),
    "grey 16 bits": ("x.png", DEEP, 65535, 1),
    "grey 16-bit TIFF": ("x.tif", DEEP, 65535, 1),
    "grey float TIFF": ("x.tif", FLOATS, 1, 1),
    "RGB 8 bits": ("x.png", stack(EIGHT, 3), 255, 3),
    "RGB 16-bit TIFF": ("x.tif", stack(DEEP, 3), 65535, 3),
    "five channels, 8-bit TIFF": ("x.tif", stack(EIGHT, 5), 255, 5),
    "thirteen channels, 16-bit TIFF": ("x.tif", stack(DEEP, 13), 65535, 13),
    "two channels, array": ("x.npy", stack(DEEP, 2), 65535, 2),
    "grey array": ("x.npy", FLOATS, 1, 1),
    "double array": ("x.npy", stack(FLOATS, 4).astype(np.float64), 1, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_values(tmp_path, name):
    file, values, most, channels = CASES[name]
    path = write(tmp_path / file, values)
    expected = (values if values.ndim == 3 else values[..., None]).astype(np.float64) * 2 / most - 1
    found = read_values(path, expected.shape[2])
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2**-22  # three roundings of numbers below 1
    assert size_of(path) == SHAPE and count_channels(path) == channels


def test_photos_become_as_many_channels_as_are_needed(tmp_path):
    colour = write(tmp_path / "c.png", stack(EIGHT, 3))
    grey = np.asarray(Image.open(colour).convert("L"))[..., None]
    assert np.array_equal(read_values(colour, 1), grey / np.float32(127.5) - 1)
    assert np.array_equal(read_values(write(tmp_path / "g.png", EIGHT), 3)[..., 2], EIGHT / np.float32(127.5) - 1)
    alpha = write(tmp_path / "a.png", stack(EIGHT, 4))
    assert np.array_equal(read_values(alpha, 4), stack(EIGHT, 4) / np.float32(127.5) - 1)


def test_planes_in_a_tiff(tmp_path):
    values = stack(DEEP, 5)
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(values, -1, 0), photometric="minisblack", planarconfig="separate")
    assert np.array_equal(read_values(tmp_path / "x.tif", 5), values / np.float32(32767.5) - 1)


def test_value_range(tmp_path):
    """Hounsfield units, clipped to what is said to be black and white."""
    path = write(tmp_path / "x.npy", np.array([[-2000, -1000], [1000, 3000]], np.int16))
    assert read_values(path, 1, (-1000, 3000))[..., 0].tolist() == [[-1, -1], [0, 1]]
    with pytest.raises(BadFileError, match="int16 from -2000 to 3000; give value_range"):
        read_values(path, 1)
    with pytest.raises(BadFileError, match="float32 from 0 to 2; give value_range"):
        read_values(write(tmp_path / "y.npy", FLOATS * 2), 1)


def test_squares_are_cut_and_resized_as_photos_are(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 32, 3), dtype=np.uint8)
    photo, array = write(tmp_path / "x.png", pixels), write(tmp_path / "x.npy", pixels)
    records = Records(tmp_path, [photo, array])
    as_photo, as_array = Images(records, 8)[0], Images(records, 8)[1]
    assert (as_photo - as_array).abs().max() <= 1.01 / 127.5  # 8 bits are rounded after each of two passes
    assert resize_part(np.ones((9, 4, 2), np.float32), (0, 2, 4, 6), (3, 3)).shape == (3, 3, 2)
    assert np.array_equal(np.asarray(Images(records, 20).picture(1, View((20, 20)))), pixels[:, 6:26])


def test_a_folder_of_arrays(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.npy", stack(DEEP[:5], 5))
    images = Images(ImageFolder(tmp_path, 5).records, 5, channels=5)
    assert len(images) == 3 and images[1].shape == (5, 5, 5)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.npy", b"\x93NUMPY\x01\x00broken", "cannot be read as an array"),
        ("x.npy", np.array(["text"]), "numbers of shape"),
        ("x.npy", np.full((2, 2, 5), np.nan), "infinite or not numbers"),
        ("x.npy", stack(EIGHT, 2), "has 2 channels where 5 are needed"),
        ("x.png", EIGHT, "has 1 channels where 5 are needed"),
        ("x.png", b"nonsense", "not an image of a known kind"),
    ],
)
def test_bad_files(tmp_path, file, content, message):
    path = tmp_path / file
    path.write_bytes(content) if isinstance(content, bytes) else write(path, content)
    with pytest.raises(BadFileError, match=message) as caught:
        read_values(path, 5)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_truncated_tiff(tmp_path):
    path = write(tmp_path / "x.tif", stack(np.zeros((64, 64), np.uint16), 7))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadFileError, match=r"x\.tif cannot be read as an image"):
        read_values(path, 7)


@pytest.mark.parametrize(("file", "channels"), [("x.npy", 5), ("x.tif", 5), ("x.tif", 3), ("x.tif", 1), ("x.png", 1)])
def test_what_is_written_is_read_again(tmp_path, file, channels):
    values = stack(FLOATS, channels)
    write_values(tmp_path / file, values)
    found = read_values(tmp_path / file, channels)
    assert np.abs((found + 1) / 2 - values).max() <= (1e-7 if file == "x.npy" else 0.5 / 65535 + 1e-7)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("x.png", stack(FLOATS, 3), "for one channel"),
        ("x.jpg", FLOATS[..., None], "give .npy"),
        ("x.npy", FLOATS * 2, "in"),
    ],
)
def test_what_can_not_be_written(tmp_path, file, values, message):
    with pytest.raises(InputError, match=message):
        write_values(tmp_path / file, values)
    assert not list(tmp_path.iterdir())


def test_inputs_of_pipelines(tmp_path):
    deep = DEEP / np.float32(32767.5) - 1
    path = write(tmp_path / "x.png", DEEP)
    for given in (path, Image.open(path), DEEP, DEEP[..., None]):
        assert np.abs(read_image(given, channels=1).numpy()[0] - deep).max() <= 2**-22
    many = stack(DEEP, 5)
    found = read_image(many, channels=5).numpy()
    assert np.abs(found - np.moveaxis(many / 32767.5 - 1, -1, 0)).max() <= 2**-22
    assert np.array_equal(
        read_image(write(tmp_path / "x.npy", many), channels=5).numpy(),
        np.moveaxis(many, -1, 0) / np.float32(32767.5) - 1,
    )
    with pytest.raises(InputError, match=r"shape \(6, 5, 5\); allowed: \(H, W\) or \(H, W, 4\)"):
        read_image(many, channels=4)
    with pytest.raises(InputError, match="has 3 channels where 5 are needed"):
        read_image(Image.new("RGB", (4, 4)), channels=5)


def npy(header, data=b"", version=b"\x01\x00"):
    """A `.npy` of a header that says anything."""
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def header(descr="'<f4'", shape="(4, 4)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


DAMAGED_ARRAYS = {
    "cut off": (npy(header(), bytes(63)), "63 bytes of data where float32 of shape (4, 4) takes 64"),
    "only a header": (npy(header()), "0 bytes of data"),
    "an absurd shape": (npy(header(shape="(1000000000, 1000000000)"), bytes(64)), "takes 4000000000000000000"),
    "a shape beyond 64 bits": (npy(header(shape="(99999999999999999999, 4)"), bytes(64)), "bytes of data"),
    "a negative shape": (npy(header(shape="(-4, -4)"), bytes(64)), "x.npy"),
    "objects": (npy(header("'|O'"), b"\x80\x04N."), "has object of shape (4, 4); numbers of shape"),
    "a record": (npy(header("[('a', '<f4')]"), bytes(64)), "numbers of shape (H, W) or (H, W, C) are read"),
    "texts": (npy(header("'<U4'"), bytes(256)), "numbers of shape"),
    "complex numbers": (npy(header("'<c8'"), bytes(128)), "numbers of shape"),
    "one axis": (npy(header(shape="(16,)"), bytes(64)), "numbers of shape"),
    "four axes": (npy(header(shape="(1, 4, 4, 1)"), bytes(64)), "numbers of shape"),
    "no axis": (npy(header(shape="()"), bytes(4)), "numbers of shape"),
    "no pixels": (npy(header(shape="(0, 4)")), "numbers of shape"),
    "too many pixels": (npy(header("'|u1'", "(1, 100000001)"), bytes(100_000_001)), "allowed: 1 to 100000000"),
    "no literal": (npy("__import__('os').system('true')"), "cannot be read as an array"),
    "deep nesting": (npy("(" * 100), "cannot be read as an array"),
    "another version": (npy(header(), bytes(64), b"\x09\x00"), "its format has the version"),
    "only a signature": (b"\x93NUMPY", "cannot be read as an array"),
    "one not a number": (npy(header(), np.full(16, np.nan, np.float32).tobytes()), "infinite or not numbers"),
    "one infinite": (npy(header(), np.array([0] * 15 + [np.inf], np.float32).tobytes()), "infinite or not numbers"),
    "beyond float32": (npy(header("'<f8'"), np.full(16, 1e300).tobytes()), "infinite or not numbers"),
}


@pytest.mark.parametrize("name", DAMAGED_ARRAYS)
def test_one_damaged_array_is_one_line_and_the_others_are_read(tmp_path, name):
    content, message = DAMAGED_ARRAYS[name]
    write(tmp_path / "a.npy", FLOATS)
    (tmp_path / "x.npy").write_bytes(content)
    images = Images(ImageFolder(tmp_path, 4).records, 4, channels=1)
    for read in (lambda: read_values(tmp_path / "x.npy", 1), lambda: images[1]):
        with pytest.raises(BadFileError) as caught:
            read()
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert images[0].shape == (1, 4, 4)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_any_order_of_axes_and_bytes(tmp_path, dtype, order):
    values = (stack(FLOATS, 2) * (65535 if dtype == ">u2" else 1)).astype(dtype)
    np.save(tmp_path / "x.npy", np.asarray(values, order=order))
    found = read_values(tmp_path / "x.npy", 2)
    assert np.abs((found + 1) / 2 - stack(FLOATS, 2)).max() <= 2**-16
    assert size_of(tmp_path / "x.npy") == SHAPE and count_channels(tmp_path / "x.npy") == 2
