"""Aspect buckets: little is cut away, batches have one size, and the order is a function of the seed."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from latentdiff.config import from_mapping
from latentdiff.data.bad_files import BadFiles, SkipBadFiles
from latentdiff.data.buckets import BucketOrder, bucket_sizes, cut_share, nearest_bucket
from latentdiff.data.framing import frame
from latentdiff.data.images import Images, Visits, read_records
from latentdiff.data.options import DataOptions
from latentdiff.data.stream import stream
from latentdiff.errors import LatentDiffWarning

RATIOS = [(1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (5, 4), (185, 115)]  # of photographs
SIZES = [(64, 64)] * 5 + [(96, 64)] * 4 + [(64, 96)] * 3 + [(60, 90), (85, 64)]


@pytest.fixture
def images(tmp_path):
    """Images of mixed shapes, each of a grey value of its own, at 32 pixels."""
    for number, size in enumerate(SIZES):
        Image.new("RGB", size, (10 * number,) * 3).save(tmp_path / f"{number:02d}.png")
    given = {"train_data_dir": str(tmp_path), "resolution": 32, "buckets": {"multiple": 4}}
    options = from_mapping(DataOptions, given)
    records, views = frame(read_records(options), options)
    return Images(records, 32, views=views)


def number_of(image):
    """Which of the images it is."""
    return round(float(image.mean() + 1) * 127.5 / 10)


@pytest.mark.parametrize(("resolution", "multiple"), [(256, 32), (512, 64), (64, 8)])
def test_three_percent_of_the_pixels_of_a_mixed_folder_are_cut_away_at_most(resolution, multiple):
    sizes = bucket_sizes(resolution, multiple, 2.0)
    cuts = [cut_share(sizes[nearest_bucket(sizes, ratio)], ratio) for ratio in RATIOS]
    assert np.mean(cuts) <= 0.03


def test_sizes_are_multiples_of_about_one_area():
    sizes = bucket_sizes(256, 32, 2.0)
    assert (256, 256) in sizes and len(set(sizes)) == len(sizes)
    assert set(sizes) == {(width, height) for height, width in sizes}
    for height, width in sizes:
        assert height % 32 == width % 32 == 0 and 0.75 * 256**2 <= height * width <= 256**2
        assert max(height, width) <= 2 * min(height, width)
    assert (192, 320) in sizes and (160, 384) not in sizes  # which has a ratio of 2.4
    assert (160, 384) in bucket_sizes(256, 32, 2.4)


def test_the_share_that_is_cut_is_that_of_the_pixels():
    assert cut_share((32, 32), (64, 64)) == 0 and cut_share((32, 64), (100, 200)) == 0
    assert cut_share((32, 32), (64, 128)) == pytest.approx(1 / 2)
    assert cut_share((32, 48), (64, 64)) == pytest.approx(1 / 3)


def test_much_that_is_cut_away_is_said(tmp_path):
    for name, size in {"a": (100, 60), "b": (64, 64)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    given = {"train_data_dir": str(tmp_path), "resolution": 32, "buckets": {"multiple": 16}}
    options = from_mapping(DataOptions, given)
    with pytest.warns(LatentDiffWarning, match=r"data.buckets cut away 20.0% of the pixels"):
        frame(read_records(options), options)


@pytest.mark.parametrize("group", [1, 2, 3, 8])
def test_a_step_has_one_bucket_and_all_items_come_equally_often(group):
    buckets = [np.arange(7), np.array([7]), np.arange(8, 20)]
    order = BucketOrder(buckets, group, seed=3)
    drawn = [order(number) for number in range(group * 20 * 30)]
    where = {item: place for place, bucket in enumerate(buckets) for item in bucket.tolist()}
    for start in range(0, len(drawn), group):
        assert len({where[item] for item in drawn[start : start + group]}) == 1
    counts = Counter(drawn)
    mean = len(drawn) / 20
    assert len(counts) == 20 and all(abs(count - mean) <= group + 1 for count in counts.values())
    first = [where[item] for item in drawn[: group * 20 : group]]
    assert group == 8 or first != sorted(first)


def test_a_sample_is_a_function_of_the_seed_and_its_number():
    buckets = [np.arange(7), np.array([7]), np.arange(8, 20)]
    drawn = [BucketOrder(buckets, 4, seed=3)(number) for number in range(200)]
    again, other = BucketOrder(buckets, 4, seed=3), BucketOrder(buckets, 4, seed=4)
    backwards = [again(number) for number in reversed(range(200))]
    assert drawn == backwards[::-1] and drawn != [other(number) for number in range(200)]


def test_batches_have_one_size_and_are_the_same_however_they_are_split(images):
    def batches(count, first=0, **split):
        items = stream(Visits(images, 1), seed=1, first_step=first, samples_in_step=4, **split)
        return [next(items) for _ in range(count)]

    whole = batches(20, batch_size=4)
    assert len({batch.shape[-2:] for batch in whole}) > 2
    assert all(batch.shape[-2] * batch.shape[-1] <= 32**2 for batch in whole)
    ranks = [batches(20, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    micro = batches(40, batch_size=2)
    for place, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([ranks[0][place], ranks[1][place]]))
        assert torch.equal(batch, torch.cat(micro[2 * place : 2 * place + 2]))
    later = batches(5, first=15, batch_size=4)
    assert all(torch.equal(one, other) for one, other in zip(whole[15:], later, strict=True))
    seen = Counter(number_of(image) for batch in whole for image in batch)
    assert set(seen) == set(range(len(SIZES)))


def test_a_bad_image_gives_way_to_one_of_its_size(images, tmp_path):
    (tmp_path / "05.png").write_bytes(b"")  # of 96x64, as four others are
    items = SkipBadFiles(Visits(images, 0), images.files, BadFiles(None, len(images), 0.5), seed=0)
    with pytest.warns(LatentDiffWarning, match="05.png"):
        found = {number_of(items.visit(5, number)) for number in range(40)}
    assert found == {6, 7, 8}


def test_an_image_that_is_not_mirrored_fills_its_bucket(images):
    for number, (width, height) in enumerate(SIZES):
        view = images.views.copy(number, 0)
        left, top, right, bottom = view.box(height, width)
        assert (right - left) * (bottom - top) >= 0.97 * width * height
        assert images.at(number, view).shape[1:] == view.size
    assert images[5].shape[1:] == (32, 32)  # outside of training
