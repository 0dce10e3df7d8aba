"""What a sample shows of an image: pixels, boxes, label maps and pairs are cut, mirrored and turned alike."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentdiff import ConfigError, InputError
from latentdiff.config import from_mapping
from latentdiff.data.degradations import degrade
from latentdiff.data.framing import frame
from latentdiff.data.images import Images, Visits, read_records
from latentdiff.data.label_maps import LabelMaps
from latentdiff.data.layouts import WholeLayout
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.views import View, Views
from latentdiff.io.images import centre_box
from latentdiff.io.stored import InMemory
from latentdiff.seeding import array_generator
from latentdiff.training.first_stage.options import FirstStageDataOptions

WHITE = 255


def stored(pixels, kind="PNG"):
    stream = io.BytesIO()
    if kind == "npy":
        np.save(stream, pixels)
    else:
        Image.fromarray(pixels).save(stream, kind)
    return InMemory(f"picture.{kind}", stream.getvalue())


def options(**given):
    return from_mapping(DataOptions, {"train_data_dir": "photos", "resolution": 16, **given})


def folder_of(folder, *sizes):
    """Images of sizes (width, height)."""
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{number}.png")
    return read_records(DataOptions(train_data_dir=str(folder)))


def drawn_case(rng):
    """An image with a white box in it, the same as a map, the box, and a view of them."""
    height, width = rng.integers(24, 80, 2)
    rows, columns = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (height, width))
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[rows[0] : rows[1], columns[0] : columns[1]] = WHITE
    side = int(rng.integers(8, 24)) * 2
    size = (side, side) if rng.random() < 0.5 else (side, int(rng.integers(8, 24)) * 2)
    turns = int(rng.integers(4)) if size[0] == size[1] else 0
    view = View(
        size, float(rng.uniform(0.3, 1)), (float(rng.random()), float(rng.random())), bool(rng.integers(2)), turns
    )
    return pixels, (columns[0] / width, rows[0] / height, columns[1] / width, rows[1] / height), view


def inside(box, size, margin=(0.0, 0.0)):
    """Which pixels of a picture have their centres in a box, or beyond it by less than a margin (down, across)."""
    if box is None:
        return np.zeros(size, bool)
    (y, x), (down, across) = [(np.arange(side) + 0.5) / side for side in size], margin
    rows, columns = (y > box[1] - down) & (y < box[3] + down), (x > box[0] - across) & (x < box[2] + across)
    return rows[:, None] & columns


@pytest.mark.thorough
def test_images_boxes_maps_and_pairs_are_cut_alike_in_a_thousand_cases():
    """A white box in the image is 1 in the map, and white in the part where the box that is said of it lies."""
    white, black = 0, 0
    for number in range(1000):
        rng = array_generator(number)
        pixels, corners, view = drawn_case(rng)
        file, numbers = stored(pixels, "npy" if number % 2 else "PNG"), stored(pixels[..., 0] // WHITE)
        images = Images(Records(Path("data"), [file], {"label_map": [numbers]}), view.size[0])
        shown = images.at(0, view)
        found = LabelMaps(images, 2, None)(0, view, rng)["maps"].numpy().astype(bool)
        assert shown.shape[1:] == found.shape == view.size

        box = view.corners(corners, *pixels.shape[:2])
        on_edge = inside(box, view.size, (1e-9, 1e-9)) & ~inside(box, view.size, (-1e-9, -1e-9))
        assert np.array_equal(found | on_edge, inside(box, view.size) | on_edge)
        (seen,) = WholeLayout([{"class": 0, "box": corners}], pixels.shape[:2]).seen(view) or [{"box": box}]
        assert seen["box"] == box

        # A pixel and more away from the edges, of the finer of the two grids, the filter has decided.
        left, top, right, bottom = view.box(*pixels.shape[:2])
        blur = max(1 / view.size[0], 1 / view.size[1], 1 / (bottom - top), 1 / (right - left))
        sure, clear = inside(box, view.size, (-blur, -blur)), ~inside(box, view.size, (blur, blur))
        if box is None or min(box[2] - box[0], box[3] - box[1]) > 4 * blur:
            white, black = white + sure.sum(), black + clear.sum()
            assert (shown[0].numpy()[sure] > 0).all() and (shown[0].numpy()[clear] < 0).all()

        picture = images.picture(0, view)
        assert (torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1 - shown).abs().max() <= 1.01 / 255
        small = degrade(np.array(picture), "bicubic", 2, seed=0)[..., 0]
        measured = view.cut(torch.from_numpy(pixels[..., 0] / 127.5 - 1)[None].float(), 2)[0].numpy()
        assert small.shape == measured.shape
        if box is None or min(box[2] - box[0], box[3] - box[1]) > 8 * blur:
            half = (view.size[0] // 2, view.size[1] // 2)
            sure, clear = inside(box, half, (-2 * blur, -2 * blur)), ~inside(box, half, (2 * blur, 2 * blur))
            assert (small[sure] > 127).all() and (small[clear] < 128).all()
            assert (measured[sure] > 0).all() and (measured[clear] < 0).all()
    assert min(white, black) > 10_000


@pytest.mark.parametrize("size", [(5, 9), (9, 5), (8, 8), (1, 7), (333, 1000)])
def test_the_centre_is_the_centre_square(size):
    assert Views(8).centre(0).box(*size) == Views(8).copy(0, 0).box(*size) == centre_box(*size)


def test_a_cache_has_each_part_in_all_eight_ways():
    views = Views(16, (0.3, 1.0), crops=3, flip=True, turn=True)
    assert views.copies == 24
    copies = [views.copy(5, copy) for copy in range(views.copies)]
    parts = {(view.zoom, view.place) for view in copies}
    square = torch.arange(4).view(2, 2)
    for part in parts:
        ways = {tuple(view.lay(square).flatten().tolist()) for view in copies if (view.zoom, view.place) == part}
        assert len(ways) == 8
    assert len(parts) == 3 and {(view.zoom, view.place) for view in map(views.copy, [6] * 3, range(3))} != parts


def test_a_visit_is_a_function_of_the_seed_and_the_number_of_the_sample():
    views = Views(16, (0.4, 0.6), turn=True, jitter=0.2)
    drawn = [views.draw(0, number, 3) for number in range(200)]
    assert drawn == [views.draw(0, number, 3) for number in range(200)]
    assert views.draw(1, 0, 3) != drawn[0] != drawn[1]
    assert all(0.4 <= view.zoom <= 0.6 for view in drawn) and {view.turns for view in drawn} == {0, 1, 2, 3}
    places = np.array([view.place for view in drawn])
    assert (places.min(0) < 0.05).all() and (places.max(0) > 0.95).all()
    factors = np.array([view.colours for view in drawn])
    assert (factors > 0.8).all() and (factors < 1.2).all() and (factors.std(0) > 0.08).all()


def test_colours_change_in_brightness_contrast_and_saturation_alone():
    grey, colour = torch.full((3, 2, 2), -0.5), torch.tensor([0.5, -0.5, -0.5]).view(3, 1, 1).expand(3, 2, 2)
    view = View((2, 2))
    assert torch.allclose(replace(view, colours=(1.2, 1.0, 1.0)).paint(grey), torch.full((3, 2, 2), -0.4))
    assert torch.allclose(replace(view, colours=(1.0, 0.5, 0.0)).paint(grey), grey)
    faded = replace(view, colours=(1.0, 1.0, 0.0)).paint(colour)
    assert torch.allclose(faded, torch.full((3, 2, 2), 0.299 * 1.5 + 0.701 * 0.5 - 1))
    assert torch.allclose(replace(view, colours=(1.0, 1.0, 1.0)).paint(colour), colour)
    flat = replace(view, colours=(1.0, 0.0, 1.0)).paint(torch.stack([grey[0], grey[0], colour[0]]).roll(1, 2))
    assert flat.std() < 1e-6 or flat.std() < colour.std()


@pytest.mark.parametrize(("size", "count"), [((16, 16), 1), ((17, 16), 2), ((32, 48), 6), ((33, 48), 9)])
def test_a_grid_covers_the_image(tmp_path, size, count):
    records, views = frame(folder_of(tmp_path, size), options(crop="grid"))
    assert len(records.files) == count
    width, height = size
    seen = np.zeros((height, width), int)
    for number in range(count):
        left, top, right, bottom = views.copy(number, 0).box(height, width)
        assert (right - left, bottom - top) == (16, 16) and views.copy(number, 0) == views.centre(number)
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1 and len({views.centre(number) for number in range(count)}) == count


def test_what_is_known_of_an_image_is_known_of_its_cells(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n{"file_name": "1.png", "text": "b"}')
    records, _ = frame(folder_of(tmp_path, (32, 16), (16, 16)), options(crop="grid"))
    assert records.columns["text"] == ["a", "a", "b"] and [file.name for file in records.files] == [
        "0.png",
        "0.png",
        "1.png",
    ]


@pytest.mark.parametrize(
    ("given", "sizes", "message"),
    [
        ({"crop": "grid"}, [(16, 16), (16, 15)], "1 of 2 images are smaller than resolution 16, the first is 1.png"),
        ({"crop": "none"}, [(20, 20), (21, 20)], r"1 of 2 images are not square, the first is 1.png with 21x20 pixels"),
        (
            {"buckets": {"multiple": 4, "max_ratio": 2}},
            [(20, 40), (41, 20)],
            "1 of 2 images are beyond all buckets, whose ratio is at most 2, the first is 1.png with 41x20 pixels",
        ),
    ],
)
def test_images_that_do_not_fit_are_told_in_one_line(tmp_path, given, sizes, message):
    records = folder_of(tmp_path, *sizes)
    frame(records.subset([0]), options(**given))
    with pytest.raises(InputError, match=message) as error:
        frame(records, options(**given))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_crop": 0.5}, "min_crop is given, but crop is 'centre'; give crop: random"),
        ({"crop": "random", "min_crop": 0.9, "max_crop": 0.8}, "min_crop is 0.9, above max_crop 0.8"),
        ({"crops_per_image": 2}, "crop 'centre' is the same at every visit"),
        ({"crop": "grid", "buckets": {}}, "crop 'grid' gives squares"),
        ({"random_rotate": True, "buckets": {"multiple": 8}}, "random_rotate too, which changes the ratio"),
        ({"buckets": {"multiple": 7}}, "buckets.multiple is 7; resolution 16 must be a multiple of it"),
        ({"crop": "middle"}, "crop is 'middle'; "),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        options(**given)


def test_options_that_do_go_together_are_taken():
    assert options(crop="random", min_crop=0.8, max_crop=0.8, crops_per_image=2).crops == 2
    assert options(crop="random").crops == options(colour_jitter=0.1).crops == 4 and options().crops == 1
    assert options(crops_per_image=1, buckets={"multiple": 8}).buckets.multiple == 8
    with pytest.raises(ConfigError, match="crops_per_image is given, but a first stage sees new crops"):
        from_mapping(FirstStageDataOptions, {"train_data_dir": "photos", "crop": "random", "crops_per_image": 2})


def test_what_is_validated_on_is_the_centre_as_it_is():
    given = options(crop="random", min_crop=0.2, random_flip=True, random_rotate=True, colour_jitter=0.1)
    assert frame(Records(Path(), []), given.of_folder("others"))[1] == Views(16)


def test_visits_are_the_views_that_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(tmp_path / f"{number}.png")
    given = options(crop="random", random_rotate=True)
    records, views = frame(read_records(DataOptions(train_data_dir=str(tmp_path))), given)
    images = Images(records, 16, views=views)
    visits = Visits(images, seed=7, places=[2, 0])
    assert len(visits) == 2 and torch.equal(visits[0], images[2])
    assert torch.equal(visits.visit(1, 9), images.at(0, views.draw(7, 9, 0)))
    assert not torch.equal(visits.visit(1, 9), visits.visit(1, 10))


def test_latents_of_other_views_are_others(tmp_path):
    records = folder_of(tmp_path, (16, 16))
    plain = Images(records, 16).fingerprint()
    assert Images(records, 16, views=Views(16, flip=True)).fingerprint() == plain  # the cache says that by itself
    kinds = [Views(16, (0.5, 1.0)), Views(16, (0.4, 1.0)), Views(16, turn=True), Views(16, crops=2, jitter=0.1)]
    assert len({plain, *(Images(records, 16, views=views).fingerprint() for views in kinds)}) == 5


def test_the_numbers_of_a_view_are_those_of_its_part_as_it_lies():
    assert View((8, 8)).numbers().tolist() == [1.0, 0.5, 0.5]
    view = View((8, 8), 0.25, (0.0, 0.75))  # at the top, right of the middle
    assert view.numbers().tolist() == [0.25, 0.0, 0.75]
    assert replace(view, mirrored=True).numbers().tolist() == [0.25, 0.0, 0.25]
    assert replace(view, turns=1).numbers().tolist() == [0.25, 0.25, 0.0]  # the right side is the upper one now
    assert replace(view, turns=2).numbers().tolist() == [0.25, 1.0, 0.25]
