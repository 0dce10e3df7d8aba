"""Samples against a reference: the same bits however they are computed, names of numbers, what cannot be measured."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_features import SmallFeatures
from tiny import write_clip_tokenizer

from latentdiff import CheckpointError, InputError
from latentdiff.bulk.shards import missing
from latentdiff.errors import LatentDiffWarning
from latentdiff.evaluation import store
from latentdiff.evaluation.distributions import ArrayRows, kid
from latentdiff.evaluation.features import load_extractor
from latentdiff.evaluation.image_sets import open_images
from latentdiff.evaluation.manifold import precision_recall
from latentdiff.evaluation.moments import frechet, moments_of
from latentdiff.evaluation.samples import SamplesEvaluation, evaluate_samples

FEW = pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")


def make(folder, count, seed=0, size=(12, 12), captions=None):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = rng.integers(0, 200 + 10 * seed, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    if captions:
        lines = [{"file_name": f"{number:04d}.png", "text": captions} for number in range(count)]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return make(root / "fake", 40, seed=1), make(root / "real", 30, seed=2)


def values(report):
    return {result.metric: result.value for result in report.results}


@pytest.mark.thorough
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_numbers_have_the_same_bits_for_any_number_of_processes(sides, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(store, "PART", 8)
    once = evaluate_samples(*sides, features=SmallFeatures(), cache=tmp_path / "once")
    evaluations = [
        SamplesEvaluation(*sides, features=SmallFeatures(), cache=tmp_path / "shared") for _ in range(processes)
    ]
    for rank, evaluation in reversed(list(enumerate(evaluations))):
        assert missing(evaluation, evaluation.shards())
        evaluation.do(evaluation.shards()[rank::processes], lambda told: None)
    assert not missing(evaluations[0], evaluations[0].shards())
    assert evaluations[0].report().results == once.results
    assert values(once).keys() == {"frechet", "frechet_spatial", "is", "precision", "recall", "density", "coverage"}


def test_an_interrupted_run_goes_on(sides, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 8)
    whole = evaluate_samples(*sides, features=SmallFeatures(), cache=tmp_path / "whole")
    first = SamplesEvaluation(*sides, features=SmallFeatures(), cache=tmp_path / "cut")

    def stop(images):
        first.seen = getattr(first, "seen", 0) + images
        if first.seen > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.compute(done=stop)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").rglob("*.npy")}
    assert kept
    damaged = min(kept)
    damaged.write_bytes(damaged.read_bytes()[:50])
    found = evaluate_samples(*sides, features=SmallFeatures(), cache=tmp_path / "cut")
    assert found.results == whole.results
    assert [p.stat().st_mtime_ns == t for p, t in sorted(kept.items())][-1]  # what was whole has not been computed anew


def test_numbers_are_those_of_the_features(sides, tmp_path):
    network = SmallFeatures()
    evaluation = SamplesEvaluation(*sides, features=network, cache=tmp_path)
    evaluation.compute()
    features = []
    for folder in sides:
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])
        with torch.no_grad():
            features.append(network(torch.from_numpy(pixels).permute(0, 3, 1, 2))["pool"].numpy())
    found = values(evaluation.report())
    assert found["frechet"] == pytest.approx(frechet(*(moments_of([f], 6) for f in features)), rel=1e-4)
    assert (found["precision"], found["recall"]) == precision_recall(*map(ArrayRows, features))


def test_features_are_computed_once_and_again_when_something_changes(sides, tmp_path):
    fake = make(tmp_path / "fake", 20, seed=1)
    keys = []

    def key(seed=0, count=None, resolution=None):
        evaluation = SamplesEvaluation(
            fake, sides[1], features=SmallFeatures(seed=seed), count=count, resolution=resolution, cache=tmp_path / "c"
        )
        evaluation.compute()
        keys.append(evaluation.sides[False][0].store.folder)

    for options in ({}, {"seed": 1}, {"count": 19}, {"resolution": 12}, {}):
        key(**options)
    assert keys[0] == keys[-1] and len(set(keys)) == 4
    Image.new("RGB", (12, 12)).save(fake / "0003.png")
    key()
    assert keys[-1] not in keys[:-1]


@pytest.mark.parametrize(("is_fid", "called"), [(True, ("fid", "sfid")), (False, ("frechet", "frechet_spatial"))])
def test_a_distance_is_called_fid_for_the_features_of_fid_alone(sides, tmp_path, is_fid, called):
    report = evaluate_samples(*sides, features=SmallFeatures(is_fid), cache=tmp_path)
    assert [result.metric for result in report.results][:2] == list(called)
    assert report.results[0].name == f"{called[0]}[small, none, 40, real]"
    names = {result.metric: result.name for result in report.results}
    assert names["is"] == "is[small, none, 40, 10 splits]"
    assert names["precision"] == "precision[small, none, 40, real, k=3]"
    asked = evaluate_samples(*sides, features=SmallFeatures(is_fid), metrics=["frechet"], cache=tmp_path)
    assert [result.metric for result in asked.results] == [called[0]]


def test_fid_of_other_features_is_refused(sides, tmp_path):
    with pytest.raises(InputError, match="features are small; fid and sfid are of the published Inception's"):
        SamplesEvaluation(*sides, features=SmallFeatures(), metrics=["fid"], cache=tmp_path)


def test_kid_is_left_out_with_a_reason_unless_it_is_asked_for(sides, tmp_path):
    report = evaluate_samples(*sides, features=SmallFeatures(), cache=tmp_path)
    assert report.notes == ["kid left out: 40 samples are given, and it needs 1000"]
    with pytest.raises(InputError, match="kid can't be computed: 40 samples are given"):
        SamplesEvaluation(*sides, features=SmallFeatures(), metrics=["kid"], cache=tmp_path)


@pytest.mark.slow
def test_kid_of_a_thousand_images_is_that_of_the_features(tmp_path):
    fake, real = (make(tmp_path / str(seed), 1000 + seed, seed, (4, 4)) for seed in (1, 2))
    evaluation = SamplesEvaluation(fake, real, features=SmallFeatures(), metrics=["kid"], cache=tmp_path / "c")
    evaluation.compute()
    (found,) = evaluation.report().results
    a, b = (ArrayRows(side.rows("pool").take(np.arange(side.store.count))) for side in evaluation.sides[False])
    assert (found.value, found.std) == kid(a, b)
    assert found.name == "kid[small, none, 1001, 2, 100 subsets of 1000]"


@pytest.mark.parametrize(("count", "warned"), [(5, True), (6, False), (7, False)])
def test_fewer_images_than_features_are_warned_of_with_the_bias(sides, tmp_path, recwarn, count, warned):
    options = {"features": SmallFeatures(), "metrics": ["frechet"], "count": count, "cache": tmp_path}
    evaluate_samples(*sides, **options)
    lines = [str(entry.message) for entry in recwarn if issubclass(entry.category, LatentDiffWarning)]
    assert bool(lines) == warned
    if warned:
        assert lines[0].startswith("frechet is of 5 images and 6 features, and too high")


def test_images_that_cannot_be_measured_are_one_line(sides, tmp_path):
    fake, real = sides
    make(tmp_path / "one", 1), make(tmp_path / "large", 8, size=(16, 16)), make(tmp_path / "mixed", 6)
    Image.new("RGB", (5, 9)).save(tmp_path / "mixed" / "0004.png")
    make(tmp_path / "broken", 6)
    (tmp_path / "broken" / "0002.png").write_bytes(b"no image")
    for samples, reference, match in (
        (tmp_path / "one", real, r"frechet.* can't be computed: 1 samples are given, and it needs 2"),
        (fake, tmp_path / "one", r"the reference one has 1 images, and it needs 2"),
        (tmp_path / "large", real, r"images of .*large are 16x16, those of .*real 12x12; give a resolution"),
        (tmp_path / "mixed", real, r"0004.png is 5x9, another image of .*mixed 12x12"),
        (tmp_path / "broken", real, r"0002.png is not an image of a known kind"),
        (tmp_path / "none", real, r"is not a folder"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            evaluate_samples(samples, reference, features=SmallFeatures(), metrics=["frechet"], cache=tmp_path / "c")
        assert "\n" not in str(caught.value)


def test_a_resolution_crops_and_resizes_both_sides_as_training_does(sides, tmp_path):
    large = make(tmp_path / "large", 8, size=(16, 20))
    report = evaluate_samples(large, sides[1], features=SmallFeatures(), resolution=8, cache=tmp_path / "c")
    assert report.facts["resolution"] == 8 and report.value("frechet") > 0


@pytest.mark.parametrize("name", ["2024", "true", "1e3", "~", "a,b"])
def test_folders_may_have_names_that_are_values_elsewhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name, 2)
    assert len(open_images(name)) == 2


@pytest.mark.parametrize(("count", "ok"), [(0, False), (1, False), (2, True), (40, True), (41, False)])
def test_counts_beyond_what_is_there_are_refused(sides, tmp_path, count, ok):
    options = {"features": SmallFeatures(), "metrics": ["frechet"], "count": count, "cache": tmp_path}
    if ok:
        assert SamplesEvaluation(*sides, **options).count == count
    else:
        with pytest.raises(InputError, match=f"{count} (images|samples)"):
            SamplesEvaluation(*sides, **options)


def test_features_that_are_no_numbers_are_named(sides, tmp_path):
    network = SmallFeatures()
    with torch.no_grad():
        network.head.weight.fill_(torch.nan)
    with pytest.raises(InputError, match=r"the features small of image 0 of .*fake are infinite or not a number"):
        evaluate_samples(*sides, features=network, cache=tmp_path)


@FEW
@pytest.mark.thorough
def test_cmmd_and_clip_score_are_of_a_folder(tmp_path):
    import transformers

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 54, "eos_token_id": 53}
    vision = {**small, "image_size": 28, "patch_size": 14}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    fake, real = make(tmp_path / "fake", 6, 1, captions="a red apple"), make(tmp_path / "real", 5, 2)
    options = {"features": SmallFeatures(), "clip": str(tmp_path / "clip"), "cache": tmp_path / "c"}
    report = evaluate_samples(fake, real, metrics=["cmmd"], **options)
    assert report.results[0].name == "cmmd[clip-clip, bicubic-antialias, 6, real]"
    with pytest.raises(InputError, match=r"clip_score can't be computed: .*real has no captions"):
        evaluate_samples(real, fake, metrics=["clip_score"], **options)
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        evaluate_samples(fake, real, metrics=["clip_score"], **options)
    write_clip_tokenizer(tmp_path).save_pretrained(tmp_path / "clip")
    report = evaluate_samples(fake, real, metrics=["clip_score"], **options)
    assert report.results[0].name == "clip_score[clip-clip, bicubic-antialias, 6]"
    tokens = transformers.CLIPTokenizer.from_pretrained(tmp_path / "clip")(["A photo depicts a red apple"])
    with torch.no_grad():
        network = transformers.CLIPModel.from_pretrained(tmp_path / "clip")
        ids = torch.tensor(tokens["input_ids"])
        text = network.text_projection(network.text_model(input_ids=ids).pooler_output)
        clip = load_extractor(f"clip:{tmp_path / 'clip'}")
        pixels = [np.asarray(Image.open(path)) for path in sorted(fake.glob("*.png"))]
        images = clip.of_block(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))["pool"]
    expected = 2.5 * torch.cosine_similarity(images, text).clamp(min=0).mean()
    assert report.value("clip_score") == pytest.approx(float(expected), abs=1e-5)
