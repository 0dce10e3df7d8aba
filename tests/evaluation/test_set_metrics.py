"""Figures of two sets of features, against their definitions written out with loops or with other algebra."""

import math

import numpy as np
import pytest

from latentdiff import InputError
from latentdiff.evaluation.distributions import ArrayRows, clip_score, cmmd, inception_score, kid
from latentdiff.evaluation.manifold import density_coverage, precision_recall
from latentdiff.evaluation.metrics import frechet_distance
from latentdiff.evaluation.moments import Moments, MomentSums, frechet, moments_of


def features(count, dim=8, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(count, dim)) + shift).astype(np.float32)


def rows(*args, **kwargs):
    return ArrayRows(features(*args, **kwargs))


def definition_of_frechet(a, b):
    """|m - n|^2 + tr(S + T - 2 (S T)^(1/2)) in float64, by the eigenvalues of S T."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root)


def test_frechet_distance_is_its_definition():
    a, b = features(700, seed=1), features(400, seed=2, shift=0.3) * 1.5
    found = frechet(moments_of([a], 8), moments_of([b], 8))
    assert found == pytest.approx(definition_of_frechet(a, b), rel=1e-10)
    assert found == pytest.approx(frechet(moments_of([b], 8), moments_of([a], 8)), rel=1e-12)


def test_frechet_distance_of_moments_of_low_rank_is_that_of_the_features():
    """With fewer images than features, half of the digits would be lost by the eigenvalues of the product."""
    import torch

    a, b = features(20, 50, seed=1), features(15, 50, seed=2, shift=0.3)
    exact = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    assert frechet(moments_of([a], 50), moments_of([b], 50)) == pytest.approx(exact, rel=1e-10)
    assert frechet(moments_of([a], 50), moments_of([a], 50)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("size", [1, 7, 32, 255, 256, 257, 1000])
def test_moments_have_the_same_bits_however_the_features_are_split(size):
    values = features(600)
    whole, parts = moments_of([values], 8), moments_of([values[i : i + size] for i in range(0, 600, size)], 8)
    assert np.array_equal(whole.mean, parts.mean) and np.array_equal(whole.covariance, parts.covariance)
    np.testing.assert_allclose(
        whole.covariance, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-10, atol=1e-14
    )


def test_moments_can_be_asked_for_on_the_way():
    values, sums = features(600), MomentSums(8)
    for count in (300, 600):
        sums.add(values[count - 300 : count])
        assert np.array_equal(sums.moments().covariance, moments_of([values[:count]], 8).covariance)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_with_their_place(value):
    values = features(300)
    values[270, 3] = value
    with pytest.raises(InputError, match="image 270 are infinite or not a number"):
        moments_of([values[:260], values[260:]], 8)


@pytest.mark.parametrize("count", [0, 1])
def test_moments_of_less_than_two_images_are_refused(count):
    with pytest.raises(InputError, match="at least 2"):
        moments_of([features(count)], 8)
    assert moments_of([features(2)], 8).count == 2


def test_moments_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="must be"):
        Moments(np.zeros(3), np.zeros((3, 2)), None)
    with pytest.raises(InputError, match=r"3 features, the other of 4.*same feature extractor"):
        frechet(*(Moments(np.zeros(n), np.eye(n), None) for n in (3, 4)))


def test_kid_is_its_definition_over_subsets():
    a, b = features(60, seed=1), features(50, seed=2, shift=0.2)
    draws, found = np.random.RandomState(2020), []
    for _ in range(5):
        x = a[draws.choice(60, 20, replace=False)].astype(np.float64)
        y = b[draws.choice(50, 20, replace=False)].astype(np.float64)
        k = lambda p, q: (p @ q / 8 + 1) ** 3  # noqa: E731
        within = sum(k(z[i], z[j]) for z in (x, y) for i in range(20) for j in range(20) if i != j)
        between = sum(k(p, q) for p in x for q in y)
        found.append(within / (20 * 19) - 2 * between / 400)
    result = kid(ArrayRows(a), ArrayRows(b), subsets=5, subset_size=20)
    assert result.mean == pytest.approx(np.mean(found), rel=1e-10)
    assert result.std == pytest.approx(np.std(found), rel=1e-9)


@pytest.mark.parametrize("size", [1, 51])
def test_kid_of_subsets_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(InputError, match=rf"subsets of {size} images from 60 and 50"):
        kid(rows(60), rows(50), subset_size=size)


def test_inception_score_is_its_definition_over_splits():
    logits = features(45, 5, seed=3) * 3
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    p = p[np.random.RandomState(2020).permutation(45)]
    found = []
    for part in range(10):
        chunk = p[part * 45 // 10 : (part + 1) * 45 // 10]
        q = chunk.mean(0)
        found.append(math.exp(sum((row * np.log(row / q)).sum() for row in chunk) / len(chunk)))
    result = inception_score(ArrayRows(logits))
    assert result.mean == pytest.approx(np.mean(found), rel=1e-12)
    assert result.std == pytest.approx(np.std(found), rel=1e-10)


def test_inception_score_of_fewer_images_than_splits_is_refused():
    with pytest.raises(InputError, match="over 10 parts, but 9"):
        inception_score(rows(9))
    assert inception_score(rows(10)).mean == pytest.approx(1)  # each part has one image


def distances(a, b):
    return np.array([[np.sqrt(((p - q) ** 2).sum()) for q in b.astype(np.float64)] for p in a.astype(np.float64)])


def test_precision_recall_density_and_coverage_are_their_definitions():
    fake, real = features(70, 4, seed=1), features(50, 4, seed=2, shift=0.7)
    radii = {k: np.sort(distances(real, real), axis=1)[:, k] for k in (3, 5)}
    fake_radii = np.sort(distances(fake, fake), axis=1)[:, 3]
    between = distances(fake, real)
    found = precision_recall(ArrayRows(fake), ArrayRows(real))
    assert found.precision == np.mean([(row <= radii[3]).any() for row in between])
    assert found.recall == np.mean([(column <= fake_radii).any() for column in between.T])
    assert 0 < found.precision < 1 and 0 < found.recall < 1
    inside = density_coverage(ArrayRows(fake), ArrayRows(real))
    assert inside.density == pytest.approx((between < radii[5]).sum() / (5 * 70))
    assert inside.coverage == np.mean((between < radii[5]).any(axis=0))
    assert 0 < inside.coverage < 1


def test_precision_of_copies_is_one_even_where_balls_have_no_radius():
    """Four equal images have a third neighbour at the distance 0, which rounding must not exceed."""
    real = np.repeat(features(10, 64) * 100, 4, axis=0)
    assert precision_recall(ArrayRows(real.copy()), ArrayRows(real)) == (1, 1)


@pytest.mark.parametrize(("count", "ok"), [(3, False), (4, True), (5, True)])
def test_neighbours_need_one_image_more(count, ok):
    if ok:
        precision_recall(rows(count), rows(count))
    else:
        with pytest.raises(InputError, match="3 images are given; the 3 nearest others need 4"):
            precision_recall(rows(count), rows(count))


def test_blocks_do_not_change_what_is_counted(monkeypatch):
    fake, real = rows(70, 4, seed=1), rows(50, 4, seed=2, shift=0.7)
    before = precision_recall(fake, real), density_coverage(fake, real), cmmd(fake, real)
    monkeypatch.setattr("latentdiff.evaluation.distributions.blocks.__defaults__", (16,))
    assert (precision_recall(fake, real), density_coverage(fake, real)) == before[:2]
    assert cmmd(fake, real) == pytest.approx(before[2], rel=1e-12)


def test_cmmd_is_its_definition():
    a, b = (features(n, 6, seed=n) for n in (12, 9))
    k = lambda p, q: np.exp(-(distances(p, q) ** 2) / 200).mean()  # noqa: E731
    assert cmmd(ArrayRows(a), ArrayRows(b)) == pytest.approx(1000 * (k(a, a) + k(b, b) - 2 * k(a, b)), rel=1e-9)


def test_clip_score_counts_no_angle_beyond_a_right_one():
    images = np.array([[1.0, 0], [1, 0], [0, 1]], np.float32)
    texts = np.array([[1.0, 0], [-1, 0], [0.6, 0.8]], np.float32)
    assert clip_score(ArrayRows(images), ArrayRows(texts)) == pytest.approx(2.5 * (1 + 0 + 0.8) / 3)
    with pytest.raises(InputError, match="one caption for each"):
        clip_score(ArrayRows(images), ArrayRows(texts[:2]))
