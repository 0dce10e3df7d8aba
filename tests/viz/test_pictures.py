"""Grids, boxes and label maps, by their pixels."""

import numpy as np
import pytest
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.viz import class_colour, draw_boxes, draw_label_map, image_grid, side_by_side
from latentdiff.viz.drawing import shorten, text_colour, text_width, wrap

WHITE = (255, 255, 255)


def noise(seed, width=10, height=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_plain_grid_is_its_images():
    arrays = [noise(seed) for seed in range(6)]
    found = np.array(image_grid([Image.fromarray(array) for array in arrays], columns=3))
    assert np.array_equal(found, np.vstack([np.hstack(arrays[:3]), np.hstack(arrays[3:])]))
    assert image_grid([Image.fromarray(array) for array in arrays[:5]]).size == (30, 16)


def test_margins_and_unequal_sizes_and_modes():
    small = Image.new("RGBA", (4, 2), (255, 0, 0, 255))
    found = np.array(image_grid([Image.fromarray(noise(0)), small], columns=2, margin=3))
    assert found.shape == (8 + 6, 20 + 9, 3)
    assert np.array_equal(found[3:11, 3:13], noise(0))
    red = (found == (255, 0, 0)).all(-1)
    assert red.sum() == 8 and red[3 + 3 : 3 + 5, 16 + 3 : 16 + 7].all()
    assert (found[:3] == 255).all() and (found[:, 13:16] == 255).all()


def test_enlarging_mixes_no_pixels():
    found = np.array(image_grid([Image.fromarray(noise(0))], scale=3))
    assert np.array_equal(found, noise(0).repeat(3, 0).repeat(3, 1))


def test_captions_stand_under_their_images():
    images = [Image.new("RGB", (60, 20), "blue")] * 2
    found = np.array(image_grid(images, columns=2, captions=["", "a word and many others"], margin=2))
    text = found[22:-2]
    assert (text[:, :64] == 255).all() and (text[:, 64:124] < 128).any()
    assert (found[:, 124:] == 255).all()
    one_line = image_grid(images, columns=2, captions=["", "a"], margin=2)
    assert one_line.height < len(found)


def test_text_fits_its_width():
    words = "some words of which a picture has to show as many as there are " * 2 + "Donaudampfschifffahrtsgesellschaft"
    lines = wrap(words, 90, 12)
    assert all(0 < text_width(line, 12) <= 90 for line in lines) and lines[-1].endswith("…")
    assert " ".join(lines[:-1]) == words.rsplit(" ", 1)[0]
    assert shorten("word", 90, 12) == "word" and wrap("", 90, 12) == []


def test_side_by_side_shows_the_difference():
    first, second = noise(0, 120, 8), noise(0, 120, 8).copy()
    second[3, 5] = first[3, 5] ^ 16
    found = np.array(side_by_side([Image.fromarray(first)], [Image.fromarray(second)], gain=4, margin=0))
    assert np.array_equal(found[:8, :120], first) and np.array_equal(found[:8, 120:240], second)
    difference = found[:8, 240:]
    assert difference[3, 5].tolist() == [64, 64, 64]
    difference[3, 5] = 0
    assert (difference == 0).all()
    assert (found[8:] < 128).any()  # the headings


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: image_grid([]), "images is empty"),
        (lambda a, b: image_grid([a], captions=["x", "y"]), "2 captions are given for 1 images"),
        (lambda a, b: image_grid([a], columns=0), "columns is 0; it must be an integer of at least 1"),
        (lambda a, b: image_grid([a], scale=1.5), "scale is 1.5"),
        (lambda a, b: image_grid([a], margin=-1), "margin is -1"),
        (lambda a, b: image_grid([a], font_size=0), "font_size is 0"),
        (lambda a, b: image_grid([a, Image.new("RGB", (0, 2))]), "image 1 has 0x2 pixels"),
        (lambda a, b: side_by_side([a], []), "0 reconstructions are given for 1 images"),
        (lambda a, b: side_by_side([a], [b]), "image 0 is 10x8 pixels, its reconstruction 5x8"),
        (lambda a, b: draw_boxes(a, [{"box": (0, 0, 1, 1)}]), "object 0 is .*; give {'class': ..., 'box': ...}"),
        (lambda a, b: draw_boxes(a, [{"class": "x", "box": (0, 0, 2, 1)}]), r"box of object 0 is \(0, 0, 2, 1\)"),
        (lambda a, b: draw_boxes(a, [{"class": 1.5, "box": (0, 0, 1, 1)}]), "object 0 has the class 1.5"),
        (lambda a, b: draw_label_map(np.array([[4]]), 4), "label map has the value 4"),
        (lambda a, b: draw_label_map(np.array([[0]]), 4, scale=0), "scale is 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call(Image.fromarray(noise(0)), Image.fromarray(noise(0, 5)))


def test_a_box_is_framed_and_labelled():
    image = Image.new("RGB", (200, 100), "black")
    objects = [{"class": "dog", "box": (0.25, 0.2, 0.5, 0.6)}]
    found = np.array(draw_boxes(image, objects))
    colour = class_colour("dog")
    frame = np.zeros((100, 200), bool)
    frame[20:80, 50:150] = True
    frame[21:79, 51:149] = False
    assert (found[frame] == colour).all()
    changed = (found != 0).any(-1) & ~frame
    label = np.zeros_like(frame)
    label[20:36, 50 : 50 + text_width("dog", 12) + 2] = True
    assert changed.any() and not (changed & ~label).any()
    assert (found[label] == colour).all(-1).mean() > 0.5 and (found[label] != colour).any()
    assert not np.array(image).any()  # the given image is untouched


def test_boxes_in_pixels_of_another_size_and_at_the_edges():
    image = Image.new("RGB", (64, 48), "black")
    relative = draw_boxes(image, [{"class": 3, "box": (0.5, 0.5, 0.5, 0.5)}])
    pixels = draw_boxes(image, [{"class": 3, "box": (320, 240, 640, 480)}], box_format="xyxy", image_size=(480, 640))
    assert np.array_equal(np.array(relative), np.array(pixels))
    found = np.array(relative)
    assert (found[47, 32:] == class_colour(3)).all() and (found[24:, 63] == class_colour(3)).all()
    tiny = np.array(draw_boxes(image, [{"class": "a very long name of a class", "box": (0.99, 0.99, 0.01, 0.01)}]))
    assert tiny[33:, :].any() and not tiny[:32].any()  # the label stays inside


def test_colours_keep_classes_apart():
    colours = [class_colour(number) for number in range(20)]
    distances = [np.abs(np.subtract(a, b)).max() for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) >= 24
    assert class_colour("dog") == class_colour("dog") != class_colour("cat")
    assert text_colour((255, 255, 0)) == "black" and text_colour((0, 0, 128)) == "white"


LABELS = np.array([[0, 1, 1], [2, 255, 0]])


def test_a_label_map_has_its_classes_colours():
    palette = {"sky": "#0000ff", 1: (0, 200, 0)}
    found = draw_label_map(
        LABELS, 3, palette=palette, class_names=["sky", "grass", "road"], ignore_index=255, legend=False, scale=2
    )
    colours = {0: (0, 0, 255), 1: (0, 200, 0), 2: class_colour(2), 255: (128, 128, 128)}
    expected = np.array([[colours[n] for n in row] for row in LABELS.tolist()]).repeat(2, 0).repeat(2, 1)
    assert np.array_equal(np.array(found), expected)


def test_a_legend_names_the_classes_that_the_map_has():
    names = ["sky", "grass", "road", "never seen"]
    found = np.array(draw_label_map(LABELS, 4, class_names=names, ignore_index=255))
    assert np.array_equal(found[:2, :3], np.array(draw_label_map(LABELS, 4, ignore_index=255, legend=False)))
    legend = found[:, 3:]
    swatches = [legend[6 + 16 * row + 5, 6 + 5].tolist() for row in range(4)]
    assert swatches == [list(class_colour(0)), list(class_colour(1)), list(class_colour(2)), [128, 128, 128]]
    for row in range(4):
        assert legend[6 + 16 * row : 6 + 16 * row + 16, 24:].min() < 100  # a name beside each
    assert len(found) == 2 * 6 + 4 * 16 and (class_colour(3) != found).any(-1).all()
    wider = draw_label_map(LABELS, 4, class_names=["sky", "grass", "a much longer name", "x"], ignore_index=255)
    assert wider.width > found.shape[1]
