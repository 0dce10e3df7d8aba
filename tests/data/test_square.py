"""Boxes and label maps of images that are no squares: what is trained on is the centre square."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from latentdiff import InputError
from latentdiff.data.images import ImageFolder
from latentdiff.data.label_maps import LabelMaps, colours_of, count_classes, indexed_palette
from latentdiff.data.layouts import read_layouts
from latentdiff.data.views import View
from latentdiff.io.images import upright_size
from latentdiff.seeding import array_generator

WIDTH, HEIGHT, SIDE = 32, 16, 8
BOXES = {"across": (4, 0, 16, 8), "left out": (0, 0, 8, 16), "inside": (12, 4, 8, 8), "sliver": (23.998, 0, 8, 8)}


@pytest.fixture
def folder(tmp_path):
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for colour, (x, y, w, h) in enumerate(BOXES.values()):
        pixels[y : y + h, int(x + 0.5) : int(x + 0.5) + w] = 60 * colour + 50
    Image.fromarray(pixels).save(tmp_path / "0.png")
    numbers = Image.fromarray(pixels[..., 0] // 55)
    numbers.save(tmp_path / "map.png")
    objects = [{"class": name, "box": box} for name, box in BOXES.items()]
    row = {"file_name": "0.png", "objects": objects, "label_map": "map.png"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    return tmp_path


def test_boxes_are_clipped_to_the_square(folder):
    """It reaches from x 8 to 24."""
    (whole,) = read_layouts(ImageFolder(folder, SIDE), "xywh", pixels=True)
    layout = whole.seen(View((SIDE, SIDE)))
    assert {item["class"]: item["box"] for item in layout} == {
        "across": (0, 0, 12 / 16, 8 / 16),
        "inside": (4 / 16, 4 / 16, 12 / 16, 12 / 16),
    }
    rows = json.loads((folder / "metadata.jsonl").read_text())
    for item in rows["objects"]:
        x, y, w, h = item["box"]
        item["box"] = [x / WIDTH, y / HEIGHT, (x + w) / WIDTH, (y + h) / HEIGHT]
    (folder / "metadata.jsonl").write_text(json.dumps(rows))
    (relative,) = read_layouts(ImageFolder(folder, SIDE), "xyxy", pixels=False)
    assert np.allclose(
        [item["box"] for item in relative.seen(View((SIDE, SIDE)))],
        [item["box"] for item in layout],
        rtol=0,
        atol=1e-12,
    )


def test_maps_are_cut_as_their_images(folder):
    maps = LabelMaps(ImageFolder(folder, SIDE), 5, None)
    found = maps(0, View((SIDE, SIDE)), array_generator(0))["maps"]
    whole = torch.from_numpy(np.array(Image.open(folder / "map.png"))).long()
    assert torch.equal(found, whole[1::2, 9:24:2])
    assert torch.equal(maps(0, View((SIDE, SIDE), mirrored=True), array_generator(0))["maps"], found.flip(-1))
    assert count_classes([folder / "map.png"]) == int(whole.max()) + 1


def test_indices_count_and_colours_must_agree(tmp_path):
    numbers = np.array([[0, 1], [2, 255]], np.uint8)
    for name, colours in {"a": [9, 0, 0, 0, 9, 0, 0, 0, 9], "b": [9, 0, 0, 0, 0, 9, 0, 9, 0]}.items():
        image = Image.fromarray(numbers).convert("P")
        image.putpalette([*colours, *[0] * (3 * 256 - len(colours))])  # a short one makes Pillow save few bits
        image.save(tmp_path / f"{name}.png")
        Image.new("RGB", (2, 2)).save(tmp_path / f"image_{name}.png")
    rows = [{"file_name": f"image_{name}.png", "label_map": f"{name}.png"} for name in "ab"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images = ImageFolder(tmp_path, 2)
    palette = indexed_palette([tmp_path / "a.png"], 3)
    assert palette == [(9, 0, 0), (0, 9, 0), (0, 0, 9)] and count_classes(images.label_maps) == 3
    assert LabelMaps(images, 3, None)(1, View((2, 2)), array_generator(0))["maps"].tolist() == numbers.tolist()
    with pytest.raises(InputError, match=r"b.png has class 1 in the colour \(0, 0, 9\), the palette says \(0, 9, 0\)"):
        LabelMaps(images, 3, palette)
    assert indexed_palette([tmp_path / "image_a.png"], 3) is None and indexed_palette([tmp_path / "a.png"], 5) is None
    assert len(colours_of(Image.open(tmp_path / "a.png"))) == 256


def test_coloured_maps_are_read_by_the_palette(tmp_path):
    pixels = np.array([[[9, 0, 0], [0, 9, 0]], [[0, 9, 0], [9, 0, 0]]], np.uint8)
    for name in ("image", "map"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "image.png", "label_map": "map.png"}))
    images = ImageFolder(tmp_path, 2)
    assert LabelMaps(images, 2, [[0, 9, 0], [9, 0, 0]])(0, View((2, 2)), array_generator(0))["maps"].tolist() == [
        [1, 0],
        [0, 1],
    ]
    with pytest.raises(InputError, match="has colours; give a palette"):
        LabelMaps(images, 2, None)


def test_sizes_are_those_of_the_upright_image(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.save(tmp_path / "plain.jpg")
    assert upright_size(tmp_path / "turned.jpg") == (4, 2) and upright_size(tmp_path / "plain.jpg") == (2, 4)
    (tmp_path / "no.png").write_text("nonsense")
    with pytest.raises(InputError, match=r"no.png cannot be read as an image"):
        upright_size(tmp_path / "no.png")
