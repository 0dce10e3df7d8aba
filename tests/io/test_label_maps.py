"""Label maps of every form hold the same numbers; what isn't of a class is named with its place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.io.label_maps import one_hot, read_label_map, read_label_maps, resize_label_map
from latentdiff.io.palettes import parse_palette

LABELS = np.array([[0, 1, 2, 3], [3, 3, 0, 1], [2, 2, 2, 0]])
NAMES = ["sky", "sea", "sand", "tree"]
COLOURS = [(0, 0, 255), (0, 128, 128), (255, 255, 0), (0, 128, 0)]
PALETTE = dict(zip(NAMES, COLOURS, strict=True))
COLOURED = np.array(COLOURS, np.uint8)[LABELS]


def indexed(labels, colours):
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(np.array(colours, np.uint8).tobytes())
    return image


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint16])
def test_integers(dtype):
    array = LABELS.astype(dtype)
    for form in (array, torch.from_numpy(array), torch.from_numpy(array)[None], array[..., None]):
        found = read_label_map(form, 4)
        assert found.dtype == torch.int64 and np.array_equal(found, LABELS)


def test_files_of_indices_and_of_greys(tmp_path):
    images = {
        "indexed": indexed(LABELS, COLOURS),
        "grey": Image.fromarray(LABELS.astype(np.uint8)),
        "grey16": Image.fromarray(LABELS.astype(np.uint16)),
        "alpha": Image.fromarray(LABELS.astype(np.uint8)).convert("LA"),
    }
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
        for form in (image, tmp_path / f"{name}.png", str(tmp_path / f"{name}.png")):
            assert np.array_equal(read_label_map(form, 4), LABELS), name
    wide = Image.fromarray(np.array([[0, 299]], np.uint16))
    assert read_label_map(wide, 300).tolist() == [[0, 299]]
    assert read_label_map(Image.fromarray(LABELS > 1), 2).tolist() == (LABELS > 1).astype(int).tolist()


@pytest.mark.parametrize("palette", [COLOURS, np.array(COLOURS), PALETTE, dict(enumerate(COLOURS))])
def test_colours_with_a_palette(tmp_path, palette):
    image = Image.fromarray(COLOURED)
    image.save(tmp_path / "a.png")
    transparent = image.copy()
    transparent.putalpha(0)
    tensor = torch.from_numpy(COLOURED).permute(2, 0, 1)
    for form in (image, transparent, tmp_path / "a.png", COLOURED, tensor):
        assert np.array_equal(read_label_map(form, 4, palette=palette, class_names=NAMES), LABELS)


def test_a_renumbered_file_is_read_by_its_colours(tmp_path):
    """Pillow's own `optimize` leaves out unused entries, so the indices change and the colours don't."""
    seen = LABELS[:, :1]  # 0, 3 and 2 only
    indexed(seen, COLOURS).save(tmp_path / "a.png", optimize=True)
    image = Image.fromarray(np.array(COLOURS, np.uint8)[seen]).quantize(3)
    assert not np.array_equal(np.array(image), seen)
    for form in (tmp_path / "a.png", image):
        assert np.array_equal(read_label_map(form, 4, palette=COLOURS), seen)


def test_colour_strings():
    assert parse_palette({"sky": "blue", 2: "#ff0"}, 4, NAMES) == {0: (0, 0, 255), 2: (255, 255, 0)}


def test_an_upright_map(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_label_map(tmp_path / "a.png", 4), LABELS[::-1, ::-1])


def test_ignored_pixels():
    labels = np.where(LABELS == 3, 255, LABELS)
    found = read_label_map(labels, 3, ignore_index=255)
    assert np.array_equal(found, labels)
    with pytest.raises(InputError, match=r"the value 255 at x 3, y 0 and 2 more pixels; allowed: 0 to 2$"):
        read_label_map(labels, 3)
    palette = {0: "red", 1: "lime", 2: "blue", 255: "white"}
    colours = np.array([[(255, 0, 0), (255, 255, 255)]], np.uint8)
    assert read_label_map(colours, 3, palette=palette, ignore_index=255).tolist() == [[0, 255]]
    assert read_label_map(np.array([[0, -1]]), 3, ignore_index=-1).tolist() == [[0, -1]]
    with pytest.raises(InputError, match="ignore_index is 255, one of the 300 classes"):
        read_label_map(LABELS, 300, ignore_index=255)


def test_one_hot():
    labels = torch.from_numpy(np.where(LABELS == 3, 255, LABELS))[None]
    channels = one_hot(labels, 4, ignore_index=255)
    assert channels.shape == (1, 4, 3, 4) and channels.dtype == torch.float32
    for number in range(4):
        assert torch.equal(channels[:, number], (labels == number).float())
    assert channels.sum(1)[labels == 255].tolist() == [0] * 3
    plain = torch.from_numpy(LABELS)[None]
    assert torch.equal(one_hot(plain, 4), F.one_hot(plain, 4).permute(0, 3, 1, 2).float())


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (1, 1), (2, 3), (7, 5), (30, 11)])
def test_resizing_takes_the_nearest_pixel(size):
    labels = torch.from_numpy(LABELS)
    expected = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    assert torch.equal(resize_label_map(labels, size), expected)
    assert torch.equal(resize_label_map(labels.expand(2, 3, 4), size), expected.expand(2, *size))


def test_batches():
    expected = torch.from_numpy(np.stack([LABELS, LABELS[::-1]]))
    for batch in (expected, expected.numpy(), list(expected), [LABELS, Image.fromarray(LABELS[::-1].astype("u1"))]):
        assert torch.equal(read_label_maps(batch, 4), expected)
    assert torch.equal(read_label_maps(COLOURED, 4, palette=COLOURS), expected[:1])
    assert read_label_maps(torch.zeros(3, 5, 6, dtype=torch.long), 4).shape == (3, 5, 6)
    with pytest.raises(InputError, match="label map: one is 4x3 pixels, another 4x2"):
        read_label_maps([LABELS, LABELS[:2]], 4)
    with pytest.raises(InputError, match="label map: none is given"):
        read_label_maps([], 4)
    with pytest.raises(InputError, match="label map 1 has the value 3 at x 3, y 0"):
        read_label_maps([LABELS % 3, LABELS], 3)


def test_unknown_colours_and_missing_palettes(tmp_path):
    image = Image.fromarray(COLOURED)
    image.putpixel((2, 1), (250, 250, 10))
    with pytest.raises(InputError, match=r"colour \(250, 250, 10\) at x 2, y 1, which is of no class; the nearest"):
        read_label_map(image, 4, palette=PALETTE, class_names=NAMES)
    with pytest.raises(InputError, match=r"nearest of the 4 allowed is \(255, 255, 0\), class 2"):
        read_label_map(image, 4, palette=PALETTE, class_names=NAMES)
    with pytest.raises(InputError, match="label map has colours; give a palette"):
        read_label_map(image, 4)
    image.save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg is a JPEG, whose compression changes labels"):
        read_label_map(tmp_path / "a.jpg", 4, palette=PALETTE, class_names=NAMES)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (LABELS / 1, "is of float64; give integers"),
        (torch.zeros(3, 4), "is of float32; give integers"),
        (LABELS - 1, "has the value -1 at x 0, y 0 and 2 more pixels; allowed: 0 to 3"),
        (LABELS + 1, "has the value 4 at x 3, y 0"),
        (np.zeros((3, 4, 2), np.uint8), r"is uint8 of shape \(3, 4, 2\); give integers \(H, W\), or uint8 colours"),
        (torch.zeros(2, 3, 4, dtype=torch.int64), r"is int64 of shape \(2, 3, 4\)"),
        (np.zeros((0, 4), int), r"of shape \(0, 4\)"),
        (7, "is of the type int; give a path"),
        ([[0, 1]], "is of the type list"),
    ],
)
def test_bad_label_maps(label_map, message):
    with pytest.raises(InputError, match=f"^label map .*{message}"):
        read_label_map(label_map, 4)


def test_bad_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"^label map .*a\.png is not an image of a known kind"):
        read_label_map(tmp_path / "a.png", 4)
    with pytest.raises(InputError, match=r"^label map .*b\.png cannot be read as an image \(No such file"):
        read_label_map(tmp_path / "b.png", 4)


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        ({}, "palette is {}; give a list of colours, or a mapping"),
        ("red", "palette is 'red'"),
        ({"skyy": "red"}, r"unknown class 'skyy'; did you mean 'sky'\?"),
        ({4: "red"}, "class 4 is given; allowed: a name or a number from 0 to 3"),
        ([(0, 0, 0)] * 2, r"palette gives \(0, 0, 0\) to class 0 and to 1"),
        ([0, 0, 0], "0 is not a colour"),
        ([(0, 0)], r"\(0, 0\) is not a colour"),
        ([(0, 0, 256)], "is not a colour"),
        ([(0, 0, 0.5)], "is not a colour"),
        (["rde"], "'rde' is not a colour; give"),
        ([(0, 0, i) for i in range(5)], "class 4 is given"),
    ],
)
def test_bad_palettes(palette, message):
    with pytest.raises(InputError, match=message):
        read_label_map(COLOURED, 4, palette=palette, class_names=NAMES)


def test_ignored_index_of_an_indexed_file_that_is_read_by_colours(tmp_path):
    indices = np.array([[0, 1, 255], [1, 255, 0]], dtype=np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([10, 0, 0, 0, 20, 0] + [200, 200, 200] * 254)
    image.save(tmp_path / "map.png")
    palette = [(0, 20, 0), (10, 0, 0)]
    found = read_label_map(tmp_path / "map.png", 2, palette=palette, ignore_index=255)
    assert found.tolist() == [[1, 0, 255], [0, 255, 1]]
    with pytest.raises(InputError, match=r"the colour \(200, 200, 200\) at x 2, y 0 and 1 more"):
        read_label_map(tmp_path / "map.png", 2, palette=palette)
