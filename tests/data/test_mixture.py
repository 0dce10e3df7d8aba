"""Several data sets with weights: which sample comes from which, and what they have to have in common."""

import json

import numpy as np
import pytest
import torch
import toy
from PIL import Image

from latentdiff import ConfigError, InputError
from latentdiff.config import from_mapping
from latentdiff.data.images import read_records
from latentdiff.data.mixture import BLOCK, MixtureOrder, shares
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Mixture
from latentdiff.data.stream import VisitedDataset, sample_numbers, stream
from latentdiff.errors import LatentDiffWarning
from latentdiff.training.data import open_training_images
from latentdiff.training.recipes import FirstStageRecipe


def mixture(sizes, weights):
    names = tuple(map(str, range(len(sizes))))
    return Mixture(np.repeat(np.arange(len(sizes)), sizes), tuple(weights), names, names)


def drawn(order, count):
    return np.array([order(number) for number in range(count)])


def test_every_thousand_samples_have_the_shares():
    order = MixtureOrder(mixture([5, 3, 2], [3, 1, 0.5]), 10, seed=7)
    found = drawn(order, 3 * BLOCK).reshape(3, BLOCK)
    for block in found:
        counts = [(block < 5).sum(), ((block >= 5) & (block < 8)).sum(), (block >= 8).sum()]
        assert counts == shares([3, 1, 0.5]) == [667, 222, 111]


def test_each_data_set_keeps_its_own_order():
    """Its items come epoch by epoch, in an order that weights and other data sets have no part in."""
    found = drawn(MixtureOrder(mixture([5, 3], [1, 1]), 8, seed=7), BLOCK)
    first = found[found < 5]
    assert all(sorted(first[start : start + 5]) == [0, 1, 2, 3, 4] for start in range(0, len(first) - 5, 5))
    assert not np.array_equal(first[:5], first[5:10])
    other = drawn(MixtureOrder(mixture([5, 300], [9, 1]), 305, seed=7), BLOCK)
    count = min(len(first), (other < 5).sum())
    assert np.array_equal(first[:count], other[other < 5][:count])


def test_a_sample_is_a_function_of_seed_and_number():
    sizes, weights = [5, 3], [2, 1]
    whole = drawn(MixtureOrder(mixture(sizes, weights), 8, seed=7), 2 * BLOCK)
    jumps = MixtureOrder(mixture(sizes, weights), 8, seed=7)
    for number in (1999, 3, 1000, 999, 0, 1500):
        assert jumps(number) == whole[number]
    assert not np.array_equal(whole, drawn(MixtureOrder(mixture(sizes, weights), 8, seed=8), 2 * BLOCK))


def test_items_of_mirrored_images_are_of_the_images_data_set():
    found = drawn(MixtureOrder(mixture([4, 2], [1, 1]), 12, seed=0), BLOCK)
    first = set(found[np.isin(found % 6, range(4))])
    assert first == {0, 1, 2, 3, 6, 7, 8, 9} and set(found) - first == {4, 5, 10, 11}
    assert np.isin(found % 6, range(4)).sum() == BLOCK // 2


@pytest.mark.parametrize(
    ("weights", "expected"),
    [([1], [1000]), ([1, 1, 1], [334, 333, 333]), ([999, 1], [999, 1]), ([1, 3], [250, 750])],
)
def test_shares(weights, expected):
    assert shares(weights) == expected


def test_a_weight_that_is_less_than_a_thousandth_is_refused():
    with pytest.raises(ConfigError, match=r"weights \[1000, 1\]; the smallest must be at least a thousandth"):
        shares([1000, 1])


class Numbers(VisitedDataset):
    def __init__(self, mixture):
        self.mixture = mixture

    def __len__(self):
        return len(self.mixture.sources)

    def visit(self, index, number):
        return torch.tensor([index, number])


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_processes_and_resumed_runs_share_one_stream(workers):
    items = Numbers(mixture([5, 3], [2, 1]))
    whole = stream(items, 4, seed=3)
    expected = torch.cat([next(whole) for _ in range(6)])
    ranks = [stream(items, 2, seed=3, rank=rank, world_size=2, num_workers=workers) for rank in range(2)]
    assert torch.equal(torch.cat([next(rank) for _ in range(6) for rank in ranks]), expected)
    later = stream(items, 4, seed=3, first_step=2)
    assert torch.equal(next(later), expected[8:12]) and list(sample_numbers(2, 4)) == [8, 9, 10, 11]


def folder(place, count, value, **columns):
    place.mkdir(parents=True)
    lines = []
    for number in range(count):
        Image.new("RGB", (8, 8), (value, 0, 0)).save(place / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", **columns}))
    if columns:
        (place / "metadata.jsonl").write_text("\n".join(lines))
    return {"dir": str(place)}


def options(*sets, **more):
    return from_mapping(DataOptions, {"train_data": list(sets), "resolution": 8, **more})


def test_records_are_joined_with_what_is_known_of_all(tmp_path):
    first = folder(tmp_path / "a", 3, 10, text="a red star", label="star")
    second = folder(tmp_path / "b", 2, 20, text="a moon")
    records = read_records(options({**first, "weight": 2}, second))
    assert records.columns == {"text": ["a red star"] * 3 + ["a moon"] * 2}
    assert f"label is known of {tmp_path / 'a'} alone of the data sets, and goes unused" in records.notes
    assert records.mixture.sources.tolist() == [0, 0, 0, 1, 1] and records.mixture.weights == (2, 1)
    assert records.subset([1, 4]).mixture.sources.tolist() == [0, 1]
    assert records.fingerprint() != read_records(options(first)).fingerprint()


def test_classes_of_one_kind(tmp_path):
    first, second = folder(tmp_path / "a", 1, 0, label="star"), folder(tmp_path / "b", 1, 0, label=3)
    with pytest.raises(InputError, match="are names here and numbers there; give all of them alike"):
        read_records(options(first, second))


def test_boxes_of_one_kind(tmp_path):
    boxed = {"objects": [{"class": "star", "box": [0, 0, 4, 4]}]}
    first, second = folder(tmp_path / "a", 1, 0, **boxed), folder(tmp_path / "b", 1, 0, **boxed)
    assert len(read_records(options(first, second)).columns["objects"]) == 2
    coco = {
        "images": [{"id": 1, "file_name": "0.png", "width": 8, "height": 8}],
        "categories": [{"id": 1, "name": "a"}],
    }
    coco["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}]
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(InputError, match="are in different formats or units"):
        read_records(options(first, {**second, "annotations": str(tmp_path / "coco.json")}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_data_dir": "a"}, "train_data_dir is given, and train_data too; give one of them"),
        ({"dataset_name": "a"}, "dataset_name is given, and train_data too"),
        ({"annotations": "x.json"}, "annotations is given beside train_data; give each data set its own"),
        ({"train_data": [{"dir": "a"}, {"dir": "a"}]}, "train_data has a twice"),
        ({"train_data": [{"dir": "a", "weight": 0}]}, "weight is 0; it must be above 0"),
        ({"train_data": [{"weight": 1}]}, "dir is missing"),
        ({"train_data": []}, "train_data_dir is missing; give it, or dataset_name"),
        ({"train_data": "a"}, "train_data is 'a'; it must be a list"),
    ],
)
def test_bad_options_are_one_line(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        from_mapping(DataOptions, {"train_data": [{"dir": "a"}], **values})
    assert "\n" not in str(caught.value)


def recipe(data, **more):
    return from_mapping(FirstStageRecipe, {"output_dir": "unused", "data": data, **more})


def test_a_data_set_that_is_held_out_as_a_whole_is_refused(tmp_path):
    first, second = folder(tmp_path / "a", 3, 10), folder(tmp_path / "b", 2, 20)
    held_out = {"validation": {"steps": 1, "data_dir": str(tmp_path / "c")}}
    (tmp_path / "c").mkdir()
    for number in range(2):
        (tmp_path / "c" / f"{number}.png").hardlink_to(tmp_path / "b" / f"{number}.png")
    with pytest.raises(InputError, match=rf"all images of {tmp_path / 'b'} are in {tmp_path / 'c'}, too"):
        open_training_images(recipe({"train_data": [first, second], "resolution": 8}, **held_out))
    (tmp_path / "c" / "1.png").unlink()
    with pytest.warns(LatentDiffWarning, match="1 images of .* are held out"):
        images = open_training_images(recipe({"train_data": [first, second], "resolution": 8}, **held_out))
    assert images.records.mixture.sources.tolist() == [0, 0, 0, 1]


@pytest.mark.thorough
def test_a_condition_that_one_data_set_lacks_is_said_before_the_first_step(tmp_path):
    data, vae = toy.write(tmp_path / "toy"), toy.write_vae(tmp_path / "vae")
    plain = toy.rewritten(data, tmp_path / "plain", dropped=["label"])
    both = {"data.train_data_dir": None, "data.train_data": [{"dir": str(data)}, {"dir": str(plain)}]}
    with (
        pytest.raises(InputError, match=rf"{data}, {plain} has no classes"),
        pytest.warns(LatentDiffWarning, match=f"label is known of {data} alone"),
    ):
        toy.train("class-to-image", data, vae, tmp_path / "out", **both)


@pytest.mark.thorough
def test_a_run_on_two_data_sets_goes_on_bit_for_bit(tmp_path):
    """Latents of both are in one cache, mirror images included."""
    first, second = toy.write(tmp_path / "a", range(1)), toy.write(tmp_path / "b", range(1, 2))
    vae = toy.write_vae(tmp_path / "vae")
    sets = [{"dir": str(first), "weight": 3}, {"dir": str(second)}]
    both = {"data.train_data_dir": None, "data.train_data": sets, "data.random_flip": True}
    toy.train("class-to-image", first, vae, tmp_path / "whole", **both)
    toy.train("class-to-image", first, vae, tmp_path / "parts", **both, max_train_steps=2)
    toy.train("class-to-image", first, vae, tmp_path / "parts", **both, resume_from_checkpoint="latest")
    whole, parts = (tmp_path / name / "checkpoint-4" / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
