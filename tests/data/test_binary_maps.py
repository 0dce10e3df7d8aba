"""Label maps of black and white, pictures in place of label maps, and maps of images that EXIF turns."""

import json

import numpy as np
import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.data.images import ImageFolder
from latentdiff.data.label_maps import LabelMaps, count_classes, read_training_map
from latentdiff.errors import LatentDiffWarning
from latentdiff.io.label_maps import read_label_map

SIDE = 16
BLACK_WHITE = [[0, 0, 0], [255, 255, 255]]
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[4:12, 4:12] = 255


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.png"


def save(values, path, mode=None):
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)
    return path


@pytest.mark.parametrize("mode", [None, "P", "LA"])
def test_0_and_255_are_not_counted_as_one_class(path, mode):
    with pytest.raises(
        InputError, match=r"have the values 0 and 255 alone.*palette \[\[0, 0, 0\], \[255, 255, 255\]\]"
    ):
        count_classes([save(MASK, path, mode)])


@pytest.mark.parametrize(("values", "count"), [(MASK // 255, 2), (MASK // 255 * 2, 3), (MASK * 0, 1)])
def test_numbers_are_counted(path, values, count):
    assert count_classes([save(values, path)]) == count
    with_void = values.copy()
    with_void[0, 0] = 255
    if count > 1:
        assert count_classes([save(with_void, path)]) == count


def test_one_bit_is_two_classes(path):
    assert count_classes([save(MASK, path, "1")]) == 2
    assert int(read_training_map(path, 2, None).sum()) == 64


@pytest.mark.parametrize("mode", [None, "P", "1", "LA", "RGB"])
@pytest.mark.parametrize("white", [0, 1])
def test_a_palette_of_black_and_white(path, mode, white):
    """In training and in sampling alike."""
    palette = BLACK_WHITE if white else BLACK_WHITE[::-1]
    save(MASK, path, mode)
    assert int((read_training_map(path, 2, palette) == white).sum()) == 64
    assert int((read_label_map(path, 2, palette=palette) == white).sum()) == 64


def test_numbers_and_a_palette_of_black_and_white(path):
    save(MASK // 255, path)
    assert int((read_training_map(path, 2, BLACK_WHITE) == 1).sum()) == 64
    greys = [[1, 1, 1], [0, 0, 0], [2, 2, 2]]
    with pytest.raises(InputError, match=r"grey with the values \[0, 1\], which are numbers of classes and shades of"):
        read_training_map(path, 3, greys)


def folder_of(tmp_path, values):
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "0.png")
    save(values, tmp_path / "m.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "label_map": "m.png"}))
    return ImageFolder(tmp_path, SIDE)


def test_two_named_classes_and_maps_of_0_and_255(tmp_path):
    with pytest.raises(InputError, match="have the values 0 and 255 alone"):
        LabelMaps(folder_of(tmp_path, MASK), 2, None)
    with pytest.warns(LatentDiffWarning, match="have the values 0 and 255 alone"):
        LabelMaps(folder_of(tmp_path, MASK), 3, None)
    LabelMaps(folder_of(tmp_path, MASK), 2, BLACK_WHITE)
    LabelMaps(folder_of(tmp_path, MASK // 255), 2, None)


def test_maps_in_which_no_pixel_has_a_class(tmp_path):
    nothing = np.full_like(MASK, 255)
    with pytest.raises(InputError, match="have the value 255 alone, which stands for pixels of no class"):
        LabelMaps(folder_of(tmp_path, nothing), 3, None)
    with pytest.raises(InputError, match="have the value 255 alone"):
        count_classes([save(nothing, tmp_path / "m.png")])
    nothing[0, 0] = 1
    assert count_classes([save(nothing, tmp_path / "m.png")]) == 2
    LabelMaps(folder_of(tmp_path, nothing), 3, None)


def test_a_photograph_is_no_label_map(path, tmp_path):
    noise = np.random.default_rng(0).integers(0, 250, (64, 64)).astype(np.uint8)
    with pytest.raises(InputError, match=r"m\.png has 250 different values, and most pixels differ"):
        count_classes([save(noise, path)])
    assert count_classes([save(np.repeat(np.repeat(noise, 8, 0), 8, 1), path)]) == 250  # large areas of many classes
    assert count_classes([save(noise % 60, path)]) == 60
    with pytest.raises(InputError, match="has colours; give a palette"):
        count_classes([save(noise, path, "RGB")])
    Image.fromarray(noise).save(tmp_path / "m.jpg")
    with pytest.raises(InputError, match="is a JPEG, whose compression changes labels"):
        count_classes([tmp_path / "m.jpg"])
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"no label map can be read, the last: .*x\.png is not an image"):
        count_classes([tmp_path / "x.png"])


@pytest.mark.parametrize(
    ("size", "orientation", "refused"),
    [((16, 16), 6, True), ((16, 8), 3, True), ((16, 8), 6, False), ((16, 8), 1, False)],
)
def test_maps_of_turned_images(tmp_path, size, orientation, refused):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(tmp_path / "0.jpg", exif=exif)
    Image.new("L", size[::-1] if orientation > 4 else size).save(tmp_path / "m.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.jpg", "label_map": "m.png"}))
    images = ImageFolder(tmp_path, 8)
    if refused:
        with pytest.raises(
            InputError, match=rf"turned by its EXIF orientation {orientation}, and its size does not tell"
        ):
            LabelMaps(images, 2, None)
    else:
        LabelMaps(images, 2, None)
