"""Large images of which a part is read: the same pixels as of the whole, and no more bytes or memory than need be."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdiff.data import images as reading
from latentdiff.data.images import Images
from latentdiff.data.records import Records
from latentdiff.data.views import View
from latentdiff.io.arrays import read_values
from latentdiff.io.images import FULL_SIZE, load_image
from latentdiff.io.stored import read_into_memory

tifffile = pytest.importorskip("tifffile")
HEIGHT, WIDTH = 700, 500
PARTS = [View((64, 64), 64 / 500, (0.3, 0.9)), View((64, 64), 0.7, (1.0, 0.0)), View((48, 64)), View((16, 16), 0.05)]


def scene(channels, dtype=np.uint8):
    """A smooth picture with some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(y / (40 + 9 * c)) * np.cos(x / (30 + 7 * c)) for c in range(channels)]
    values = 0.45 + 0.4 * np.stack(waves, -1) + 0.05 * rng.random((HEIGHT, WIDTH, channels))
    return (values * np.iinfo(dtype).max).astype(dtype)


class Counted:
    """A file of which it is counted how many bytes are read."""

    def __init__(self, path):
        self.path, self.name, self.read = path, str(path), 0

    def open(self, mode):
        counted, stream = self, io.BytesIO(self.path.read_bytes())

        class Reader(io.RawIOBase):
            def readable(self):
                return True

            def seekable(self):
                return True

            def seek(self, *place):
                return stream.seek(*place)

            def tell(self):
                return stream.tell()

            def readinto(self, buffer):
                found = stream.read(len(buffer))
                buffer[: len(found)] = found
                counted.read += len(found)
                return len(found)

        return Reader()

    def __str__(self):
        return self.name


GREY = {"photometric": "minisblack"}
TILED = {"tile": (64, 64), **GREY}


def planes(values):
    return np.moveaxis(values, -1, 0)


WRITERS = {
    "tiles.tif": lambda path, values: tifffile.imwrite(path, values, planarconfig="contig", **TILED),
    "deflated.tif": lambda path, values: tifffile.imwrite(
        path, values, planarconfig="contig", compression="zlib", predictor=True, **TILED
    ),
    "strips.tif": lambda path, values: tifffile.imwrite(path, values, planarconfig="contig", rowsperstrip=7, **GREY),
    "planes.tif": lambda path, values: tifffile.imwrite(path, planes(values), planarconfig="separate", **TILED),
    "array.npy": np.save,
    "fortran.npy": lambda path, values: np.save(path, np.asfortranarray(values)),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("area", [(3, 5, 90, 71), (0, 0, 500, 700), (440, 640, 500, 700), (64, 128, 65, 129)])
def test_an_area_is_that_of_the_whole(tmp_path, name, area):
    path, values = tmp_path / name, scene(5, np.uint16)
    WRITERS[name](path, values)
    left, top, right, bottom = area
    assert np.array_equal(read_values(path, 5, None, area), read_values(path, 5)[top:bottom, left:right])


@pytest.mark.parametrize("name", ["tiles.tif", "deflated.tif", "planes.tif", "array.npy"])
def test_no_more_is_read_than_the_tiles_or_rows_of_the_part(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path, scene(5, np.uint16))
    file = Counted(path)
    read_values(file, 5, None, (100, 200, 164, 264))
    assert file.read < 0.15 * path.stat().st_size
    read_values(file, 5)
    assert file.read > 0.9 * path.stat().st_size


@pytest.mark.parametrize("view", PARTS)
@pytest.mark.parametrize("name", ["tiles.tif", "array.npy"])
def test_a_part_is_resized_as_in_the_whole(tmp_path, monkeypatch, name, view):
    path = tmp_path / name
    WRITERS[name](path, scene(5, np.uint16))
    images = Images(Records(tmp_path, [path]), 64, channels=5)
    small = images.at(0, view)
    monkeypatch.setattr(reading, "filter_area", lambda box, size, height, width: (0, 0, width, height))
    assert torch.allclose(small, images.at(0, view), rtol=0, atol=2e-6)


@pytest.mark.parametrize("view", PARTS)
def test_a_large_rgb_tiff_is_read_in_tiles_with_the_same_pixels(tmp_path, monkeypatch, view):
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, scene(3), tile=(64, 64), photometric="rgb", compression="zlib")
    images = Images(Records(tmp_path, [path]), 64)
    whole = images.at(0, view)
    monkeypatch.setattr(reading, "LARGE_FILE", 0)
    assert torch.allclose(images.at(0, view), whole, rtol=0, atol=1.01 / 127.5)
    if view.zoom < 0.5:
        monkeypatch.setattr(reading, "load_image", None)  # the whole is not decoded
        images.at(0, view)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("view", "factor"), [(PARTS[0], 1), (View((32, 32), 0.9), 4), (View((16, 16), 1.0, (1.0, 1.0)), 8)]
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path, orientation, view, factor):
    path = tmp_path / "photo.jpg"
    picture = Image.fromarray(scene(3))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(path, quality=95, exif=exif)
    images = Images(Records(tmp_path, [path]), 64)
    size = (WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH)
    factor = min(factor, 4) if orientation == 6 else factor  # which divides the sides
    decoded = load_image(path, reduce=lambda height, width: factor)
    assert decoded.info.get(FULL_SIZE, size) == size and decoded.height == -(-size[0] // factor)
    expected = load_image(path).resize(view.size[::-1], Image.Resampling.LANCZOS, box=view.box(*size))
    assert np.abs(np.asarray(images.picture(0, view), int) - np.asarray(expected, int)).mean() < 1.5


def test_an_image_in_memory_is_read_as_the_file(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, scene(5, np.uint16))
    images = Images(Records(Path(), [path, read_into_memory(path)]), 64, channels=5)
    assert torch.equal(images[0], images[1])
