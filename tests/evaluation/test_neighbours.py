"""Nearest training images of samples: their definition, the picture, what cannot be compared."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_features import SmallFeatures
from test_samples import make

from latentdiff import InputError
from latentdiff.bulk.shards import missing
from latentdiff.evaluation import neighbours as module
from latentdiff.evaluation import store
from latentdiff.evaluation.distributions import ArrayRows, blocks
from latentdiff.evaluation.neighbours import NeighboursEvaluation, evaluate_neighbours, find_neighbours


def by_definition(samples, training, k):
    """Places and distances of the k nearest, and how far the nearest is from its own nearest other."""
    distances = np.linalg.norm(samples[:, None] - training[None], axis=2)
    places = distances.argsort(axis=1)[:, :k]
    between = np.linalg.norm(training[:, None] - training[None], axis=2)
    between[between == 0] = np.inf
    return places, np.take_along_axis(distances, places, axis=1), between.min(axis=1)[places[:, 0]]


@pytest.mark.parametrize("block", [7, 64])
def test_neighbours_are_those_of_all_distances_whatever_the_blocks(monkeypatch, block):
    rng = np.random.default_rng(0)
    samples, training = rng.normal(size=(23, 5)), rng.normal(size=(31, 5))
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "blocks", lambda rows: blocks(rows, block))
    found = find_neighbours(ArrayRows(samples), ArrayRows(training), 4)
    places, distances, apart = by_definition(samples, training, 4)
    assert np.array_equal(found.places.numpy(), places)
    assert found.distances.numpy() == pytest.approx(distances, rel=1e-9)
    assert found.apart.numpy() == pytest.approx(apart, rel=1e-9)
    assert found.memorisation == np.mean(distances[:, 0] < apart)


@pytest.mark.parametrize(("at", "memorised"), [(0.0, 1), (0.9, 1), (1.0, 0), (1.1, 0)])
def test_a_sample_is_memorised_that_is_nearer_than_the_nearest_other(at, memorised):
    """Training images at 0, -1 and 5: the first is 1 apart from its nearest other."""
    training = np.array([[0.0, 0], [-1, 0], [5, 0]])
    found = find_neighbours(ArrayRows(np.array([[0, at]])), ArrayRows(training), 1)
    assert found.places.tolist() == [[0]] and found.ratios.tolist() == pytest.approx([at])
    assert found.memorisation == memorised


def test_copies_within_the_training_set_hide_no_memorisation():
    training = np.array([[0.0, 0], [0, 0], [3, 0], [9, 0]])
    found = find_neighbours(ArrayRows(np.array([[0.0, 0], [2, 0]])), ArrayRows(training), 2)
    assert found.apart.tolist() == [3, 3] and found.ratios.tolist() == pytest.approx([0, 1 / 3])
    with pytest.raises(InputError, match="all training images have equal features"):
        find_neighbours(ArrayRows(training[:1]), ArrayRows(training[:2]), 1)


def test_new_samples_of_the_same_distribution_score_as_mutual_neighbours_do():
    """Of points in a plane, 62 % are their nearest neighbour's nearest neighbour (6 pi / (8 pi + 3 sqrt 3))."""
    rng = np.random.default_rng(0)
    samples, training = rng.random((4000, 2)), rng.random((4000, 2))
    found = find_neighbours(ArrayRows(samples), ArrayRows(training), 1)
    assert found.memorisation == pytest.approx(0.6215, abs=0.03)


def test_new_samples_of_many_dimensions_score_less_since_few_training_images_are_near_to_all():
    rng = np.random.default_rng(0)
    samples, training = rng.normal(size=(500, 200)), rng.normal(size=(500, 200))
    assert 0.02 < find_neighbours(ArrayRows(samples), ArrayRows(training), 1).memorisation < 0.4


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    samples, training = make(root / "samples", 6, seed=1), make(root / "training", 14, seed=2)
    Image.open(training / "0009.png").save(samples / "0003.png")
    return samples, training


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_copy_is_found_and_numbers_have_the_same_bits_for_any_number_of_processes(
    sides, tmp_path, monkeypatch, processes
):
    monkeypatch.setattr(store, "PART", 4)
    once = evaluate_neighbours(*sides, features=SmallFeatures(), cache=tmp_path / "one", output=tmp_path / "one.png")
    evaluations = [
        NeighboursEvaluation(*sides, features=SmallFeatures(), cache=tmp_path / "c") for _ in range(processes)
    ]
    for rank, evaluation in reversed(list(enumerate(evaluations))):
        assert missing(evaluation, evaluation.shards())
        evaluation.do(evaluation.shards()[rank::processes], lambda told: None)
    found = evaluations[0].find()
    assert evaluations[0].report(found).results == once.results
    assert (found.places[3, 0], found.ratios[3]) == (9, 0)
    assert [result.name for result in once.results] == [
        f"{metric}[small, none, 6, training]" for metric in ("memorisation", "distance_ratio_median", "copies")
    ]
    assert once.value("copies") == 1 and once.value("memorisation") >= 1 / 6
    assert once.notes[0] == "0003.png has the ratio 0 to 0009.png" and len(once.notes) == 6


@pytest.mark.parametrize(("order", "first"), [("nearest", 3), ("given", 0)])
def test_the_picture_has_a_row_for_each_sample_with_its_neighbours(sides, tmp_path, order, first):
    options = {"features": SmallFeatures(), "cache": tmp_path, "neighbours": 2, "rows": 5, "order": order}
    evaluation = NeighboursEvaluation(*sides, **options)
    evaluation.compute()
    found = evaluation.find()
    picture = np.asarray(evaluation.picture(found))
    images = [evaluation.samples.pixels(first), *(evaluation.training.pixels(int(n)) for n in found.places[first])]
    for column, pixels in enumerate(images):
        left = 4 + column * 136  # each pixel is enlarged to 11, so that images have at least 128
        assert np.array_equal(picture[4:136, left : left + 132], pixels.repeat(11, axis=0).repeat(11, axis=1))
    assert picture.shape[1] == 4 + 3 * 136


def test_what_cannot_be_compared_is_one_line(sides, tmp_path):
    samples, training = sides
    make(tmp_path / "one", 1), make(tmp_path / "large", 4, size=(16, 16)), make(tmp_path / "mixed", 4)
    make(tmp_path / "broken", 4)
    Image.new("RGB", (5, 9)).save(tmp_path / "mixed" / "0002.png")
    (tmp_path / "broken" / "0002.png").write_bytes(b"no image")
    few = {"neighbours": 1}
    for given, options, match in (
        ((samples, training), {"neighbours": 15}, "has 14 training images; 15 neighbours, .* need at least 15"),
        ((samples, tmp_path / "one"), few, "has 1 training images; 1 neighbours, .* need at least 2"),
        ((samples, training), {"count": 7}, "7 images of .*samples are asked for; it has 6"),
        ((samples, training), {"training_count": 15}, "15 images of .*training are asked for; it has 14"),
        ((samples, training), {"neighbours": 0}, "neighbours is 0; it must be at least 1"),
        ((samples, training), {"rows": 0}, "rows is 0; it must be at least 1"),
        ((samples, training), {"order": "random"}, "order is 'random'; it must be nearest or given"),
        (
            (samples, tmp_path / "large"),
            few,
            "images of .*samples are 12x12, those of .*large 16x16; give a resolution",
        ),
        ((tmp_path / "mixed", training), few, "0002.png is 5x9, another image of .*mixed 12x12"),
        ((tmp_path / "broken", training), few, "0002.png is not an image of a known kind"),
        ((samples, tmp_path / "none"), few, "is not a folder"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            evaluate_neighbours(*given, features=SmallFeatures(), cache=tmp_path / "c", **options)
        assert "\n" not in str(caught.value)
    network = SmallFeatures()
    with torch.no_grad():
        network.convolution.bias.fill_(torch.nan)
    with pytest.raises(InputError, match=r"the features small of image 0 of .*samples are infinite or not a number"):
        evaluate_neighbours(*sides, features=network, cache=tmp_path / "c")


@pytest.mark.parametrize(("count", "ok"), [(9, False), (10, True), (11, True)])
def test_ten_neighbours_need_ten_training_images(sides, tmp_path, count, ok):
    options = {"features": SmallFeatures(), "cache": tmp_path, "training_count": count}
    if ok:
        assert NeighboursEvaluation(*sides, **options).training_count == count
    else:
        with pytest.raises(InputError, match="has 9 training images; 10 neighbours"):
            NeighboursEvaluation(*sides, **options)
