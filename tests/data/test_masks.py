import numpy as np
import pytest

from latentdiff.data.masks import MEDIUM, THICK, THIN, Boxes, Segments, Strokes, coverage_statistics, measure_coverage
from latentdiff.errors import ConfigError, InputError
from latentdiff.registry import MASKS
from latentdiff.seeding import array_generator

NAMES = MASKS.names()


def label_map(height, width):
    """Twelve cells around fixed points."""
    points = np.random.default_rng(5).random((12, 2)) * (height, width)
    places = np.stack(np.mgrid[0:height, 0:width], axis=-1)
    return np.square(places[:, :, None] - points).sum(-1).argmin(-1)


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(256, 256), (64, 96), (120, 33), (8, 8)])
def test_shape_type_and_coverage(name, size):
    canvas = label_map(*size)
    for index in range(8):
        mask = MASKS.get(name)(canvas, array_generator(0, index))
        assert mask.shape == size
        assert mask.dtype == np.bool_
        assert 0 < measure_coverage(mask) <= 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_is_a_function_of_its_generator(name):
    canvas, bounds = label_map(64, 64), (0.1, 0.3)
    first = [MASKS.get(name)(canvas, array_generator(7, index), bounds) for index in range(6)]
    again = [MASKS.get(name)(canvas, array_generator(7, index), bounds) for index in reversed(range(6))][::-1]
    assert np.array_equal(first, again)
    assert len({mask.tobytes() for mask in first}) > 1
    assert all(0.1 <= measure_coverage(mask) <= 0.3 for mask in first)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "segment"])
def test_a_size_is_enough_for_strokes_and_boxes(name):
    by_map = MASKS.get(name)(label_map(64, 80), array_generator(1))
    assert np.array_equal(MASKS.get(name)((64, 80), array_generator(1)), by_map)


# LaMa's ranges and order of draws with OpenCV 5.0.0's lines, 256x256, 3000 masks: mean and standard deviation.
@pytest.mark.thorough
@pytest.mark.parametrize(
    "strokes, mean, deviation", [(THIN, 0.292, 0.13), (MEDIUM.first, 0.298, 0.086), (THICK.first, 0.459, 0.21)]
)
def test_strokes_cover_what_lamas_cover(strokes, mean, deviation):
    n = 300
    own = coverage_statistics(strokes, (256, 256), n, coverage=(0, 1))
    assert abs(own["mean"] - mean) < 4 * deviation * (1 / n + 1 / 3000) ** 0.5


def test_coverage_hardly_depends_on_the_size():
    small, large = (coverage_statistics(THICK, (side, side), 300, coverage=(0, 1))["mean"] for side in (64, 256))
    assert abs(small - large) < 4 * 0.21 * (2 / 300) ** 0.5


def test_chains_are_one_to_five_lines_with_round_ends():
    area = []
    for index in range(600):
        mask = Strokes(chains=(1, 1), width=(9, 9), length=(25, 25))((256, 256), array_generator(index), (0, 1))
        rows, columns = np.nonzero(mask)
        if min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 255:
            area.append(mask.sum())
    side, ends = 25 * 10.5, np.pi * 5.25**2  # 9 wide is painted 10.5 wide, as OpenCV does
    assert min(area) == pytest.approx(side + ends, rel=0.03)
    assert max(area) == pytest.approx(5 * side + ends, rel=0.03)


def test_chains_go_left_and_right_in_turn():
    means = []
    for chains in (1, 2):
        strokes = Strokes(chains=(chains, chains), width=(9, 9), length=(120, 120))
        share = np.mean([strokes((256, 256), array_generator(index), (0, 1)) for index in range(400)], axis=(0, 1))
        means.append((share * np.arange(256)).sum() / share.sum() - 127.5)
    # A start is 256 / sqrt(12) = 74 pixels from the centre, the mean of 400 is known to 3.7, of twice as many to 2.6.
    assert means[0] < -4 * 3.7
    assert abs(means[1]) < 4 * 2.6


def test_boxes_are_rectangles_within_the_margin():
    sides = []
    for index in range(400):
        mask = Boxes(count=(1, 1), side=(30, 150), margin=10)((256, 256), array_generator(index), (0, 1))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert min(rows[0], columns[0]) >= 10
        assert max(rows[-1], columns[-1]) <= 245
        sides += [len(rows), len(columns)]
    assert min(sides) >= 30
    assert max(sides) <= 150
    assert np.mean(sides) == pytest.approx(90, abs=4 * 35 / 800**0.5)


def test_segments_are_whole_segments_of_the_map():
    labels, seen, counts = label_map(64, 64), set(), set()
    for index in range(100):
        mask = MASKS.get("segment")(labels, array_generator(index))
        chosen = set(np.unique(labels[mask]))
        assert not chosen & set(np.unique(labels[~mask]))
        seen |= chosen
        counts.add(len(chosen))
    assert len(seen) == 12
    assert counts == {1, 2, 3}


def test_large_and_ignored_segments_are_never_chosen():
    labels = np.zeros((10, 10), dtype=np.int64)
    labels[:2], labels[2:4] = 1, 255
    masks = [Segments((1, 3), 0.5, ignore_index=255)(labels, array_generator(i)) for i in range(20)]
    assert all(np.array_equal(mask, labels == 1) for mask in masks)


def test_statistics_are_of_the_masks():
    values = [measure_coverage(MASKS.get("box")((64, 64), array_generator(0, index))) for index in range(50)]
    statistics = coverage_statistics(MASKS.get("box"), (64, 64), 50)
    assert statistics["mean"] == pytest.approx(np.mean(values))
    assert statistics["50%"] == pytest.approx(np.median(values))
    assert list(statistics) == ["mean", "5%", "25%", "50%", "75%", "95%"]


BAD = {
    "no size": ("64x64", (0, 0.5), "the mask's size is '64x64'"),
    "float size": ((64.0, 64), (0, 0.5), "size is"),
    "zero": ((0, 64), (0, 0.5), r"size is \(0, 64\); give"),
    "list": ([64, 64], (0, 0.5), "size is"),
    "three sides": ((64, 64, 3), (0, 0.5), "size is"),
    "float map": (np.zeros((64, 64)), (0, 0.5), "the map is float64 of shape"),
    "map of colours": (np.zeros((64, 64, 3), dtype=np.uint8), (0, 0.5), "the map is uint8 of shape"),
    "inverted bounds": ((64, 64), (0.5, 0.1), r"coverage is \(0.5, 0.1\); give"),
    "percent": ((64, 64), (10, 50), "coverage is"),
    "not bounds": ((64, 64), 0.5, "coverage is 0.5; give"),
    "nan": ((64, 64), (float("nan"), 0.5), "coverage is"),
    "out of reach": ((64, 64), (0.999, 1), "no mask covered 0.999 to 1 of the image in 1000 draws, which covered"),
}


@pytest.mark.parametrize("canvas, coverage, message", BAD.values(), ids=BAD)
def test_bad_input(canvas, coverage, message):
    with pytest.raises(InputError, match=message):
        MASKS.get("box")(canvas, array_generator(0), coverage)


def test_segments_need_a_map():
    with pytest.raises(InputError, match=r"1 segments covers less than 0\.5 of the image; give a finer map"):
        MASKS.get("segment")((64, 64), array_generator(0))


def test_unknown_name():
    with pytest.raises(ConfigError, match="unknown mask generator 'thik'; did you mean 'thick'"):
        MASKS.get("thik")
