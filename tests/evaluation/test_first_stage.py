"""What a first stage makes of images: files, numbers, the codebook, interruptions."""

import copy

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from small_features import SmallFeatures
from test_pairs import found, make

from latentdiff import CheckpointError, InputError, VQModel
from latentdiff.bulk.shards import missing
from latentdiff.evaluation import store
from latentdiff.evaluation.first_stage import FirstStageEvaluation, codebook_use, first_stage_of
from latentdiff.pipelines.codec import decode, encode

pytestmark = pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")
BLOCKS = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.fixture(scope="module")
def stages():
    torch.manual_seed(0)
    return {
        "kl": AutoencoderKL(**BLOCKS, latent_channels=4).eval(),
        "vq": VQModel(**BLOCKS, latent_channels=3, num_vq_embeddings=16).eval(),
    }


def evaluate(*args, processes=1, **options):
    evaluation = FirstStageEvaluation(*args, features=SmallFeatures(), **options)
    for rank in range(processes):
        evaluation.do(missing(evaluation, evaluation.shards()[rank::processes]), lambda told: None)
    sets = evaluation.sets()
    for rank in range(processes):
        sets.do(missing(sets, sets.shards()[rank::processes]), lambda told: None)
    return evaluation.report()


@pytest.mark.parametrize("kind", ["kl", "vq"])
@pytest.mark.parametrize("processes", [1, 2])
def test_numbers_are_those_of_the_reconstructions(stages, tmp_path, kind, processes):
    data = make(tmp_path / "data", 11, size=(16, 20))
    report = evaluate(stages[kind], data, tmp_path / "out", processes=processes, cache=tmp_path / "c")
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(data.glob("*.png"))])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = encode(stages[kind], images, scaled=True)
    made = (decode(stages[kind], latents) * 255).round()
    files = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").glob("*.png"))])
    assert np.abs(made.permute(0, 2, 3, 1).numpy() - files).max() <= 1
    psnr = [-10 * np.log10(((x / 255.0 - y / 255.0) ** 2).mean()) for x, y in zip(files, pixels, strict=True)]
    values = found(report)
    assert values["psnr[11, data]"] == pytest.approx((np.mean(psnr), np.std(psnr)), rel=1e-6)
    assert values["rfrechet[small, none, 11, data]"][0] > 0
    if kind == "vq":
        counts = np.bincount(stages[kind].indices(latents).flatten().numpy(), minlength=16)
        assert values["codebook_used[11, 16 codes]"][0] == (counts > 0).mean()
        p = counts[counts > 0] / counts.sum()
        assert values["codebook_perplexity[11, 16 codes]"][0] == pytest.approx(2 ** -(p * np.log2(p)).sum(), rel=1e-9)
    else:
        assert not any("codebook" in name for name in values)


@pytest.mark.parametrize(
    ("counts", "perplexity", "used"), [([5, 0, 0], 1, 1 / 3), ([2, 2, 0], 2, 2 / 3), ([4, 4, 4], 3, 1)]
)
def test_codebook_use_of_known_counts(counts, perplexity, used):
    assert [result.value for result in codebook_use(np.array(counts), "1")] == pytest.approx([perplexity, used])


def test_reconstructions_are_kept_and_those_of_other_options_are_not_mixed(stages, tmp_path):
    data = make(tmp_path / "data", 9, size=(16, 16))
    first = evaluate(stages["kl"], data, tmp_path / "out", cache=tmp_path / "c")
    (tmp_path / "out" / "000003.png").unlink()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    again = evaluate(stages["kl"], data, tmp_path / "out", cache=tmp_path / "c")
    assert again.results == first.results
    assert (tmp_path / "out" / "000008.png").stat().st_mtime_ns == times[tmp_path / "out" / "000008.png"]
    for options, match in (
        ({"count": 8}, "count 9, but this run has 8"),
        ({"resolution": 8}, "images '.*', but this run has"),
    ):
        with pytest.raises(InputError, match=match):
            evaluate(stages["kl"], data, tmp_path / "out", cache=tmp_path / "c", **options)
    with pytest.raises(InputError, match=r"weights '.*', but this run has"):
        evaluate(stages["vq"], data, tmp_path / "out", cache=tmp_path / "c")
    with pytest.raises(InputError, match="has other files"):
        evaluate(stages["kl"], data, tmp_path / "data", cache=tmp_path / "c")


def test_processes_share_the_features_too(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PART", 4)
    data = make(tmp_path / "data", 9, size=(16, 16))
    whole = evaluate(stages["kl"], data, tmp_path / "out", cache=tmp_path / "whole")
    evaluation = FirstStageEvaluation(
        stages["kl"], data, tmp_path / "out", features=SmallFeatures(), cache=tmp_path / "shared"
    )
    sets = evaluation.sets()
    assert len(missing(sets, sets.shards())) == 6 and sets.size() == 18
    sets.do(sets.shards()[1::2], lambda told: None)
    assert len(missing(sets, sets.shards())) == 3
    sets.do(sets.shards()[::2], lambda told: None)
    assert evaluation.report().results == whole.results
    alone = FirstStageEvaluation(stages["kl"], data, tmp_path / "out", metrics=["psnr"], cache=tmp_path / "alone")
    assert alone.sets() is None  # and nothing was loaded for it


def test_missing_weights_are_told_before_anything_is_reconstructed(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    data = make(tmp_path / "data", 2, size=(16, 16))
    with pytest.raises(CheckpointError, match=r"SHA-256 begins with 397923af; put it into .*checkpoints"):
        FirstStageEvaluation(stages["kl"], data, tmp_path / "out", metrics=["psim"])
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        FirstStageEvaluation(stages["kl"], data, tmp_path / "out", features=f"inception:{tmp_path / 'none.pth'}")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_one_line(stages, tmp_path):
    data = make(tmp_path / "data", 2, size=(15, 16))
    for options, match in (
        ({}, "images of 16x15, which the first stage's factor 2 doesn't divide"),
        ({"count": 3}, "3 images of .* it has 2"),
        ({"resolution": 16, "metrics": ["codebook"]}, "no VQ first stage"),
    ):
        with pytest.raises(InputError, match=match):
            evaluate(stages["kl"], data, tmp_path / "out", cache=tmp_path / "c", **options)


def test_images_that_cannot_be_reconstructed_are_one_line_and_the_others_are_kept(stages, tmp_path):
    for name, file in (("broken", b"no image"), ("mixed", None)):
        data = make(tmp_path / name, 10, size=(16, 16))
        path = data / "009.png"
        Image.new("RGB", (16, 8)).save(path) if file is None else path.write_bytes(file)
        with pytest.raises(
            InputError, match=r"009.png is (not an image of a known kind|16x8, another image of)"
        ) as told:
            evaluate(stages["kl"], data, tmp_path / f"out-{name}", cache=tmp_path / "c")
        assert "\n" not in str(told.value)
        assert len(list((tmp_path / f"out-{name}").glob("*.png"))) == 8  # those of the first block
    network = copy.deepcopy(stages["kl"])
    with torch.no_grad():
        network.decoder.conv_out.bias.fill_(torch.nan)
    data = make(tmp_path / "data", 2, size=(16, 16))
    with pytest.raises(InputError, match=r"the decoded images are not finite, .* check its weights"):
        evaluate(network, data, tmp_path / "nan", cache=tmp_path / "c")
    assert not list((tmp_path / "nan").glob("*.png"))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_image_has_no_distance_but_the_other_numbers(stages, tmp_path, count):
    data = make(tmp_path / "data", count, size=(16, 16))
    options = {"features": SmallFeatures(), "cache": tmp_path / "c"}
    evaluation = FirstStageEvaluation(stages["kl"], data, tmp_path / "out", **options)
    evaluation.do(evaluation.shards(), lambda told: None)
    if count > 1:
        evaluation.sets().compute()
    report = evaluation.report()
    names = list(found(report))
    assert ("the distance of the sets left out: 1 image is given, and it needs 2" in report.notes) == (count == 1)
    assert f"psnr[{count}, data]" in names and (f"rfrechet[small, none, {count}, data]" in names) == (count > 1)
    if count == 1:
        with pytest.raises(InputError, match="rfrechet compares sets of images, and 1 is given; give at least 2"):
            FirstStageEvaluation(stages["kl"], data, tmp_path / "out", metrics=["rfrechet"], **options)


def test_a_first_stage_is_loaded_alone_or_out_of_a_model(stages, tmp_path):
    stages["vq"].save_pretrained(tmp_path / "vq")
    assert torch.equal(first_stage_of(str(tmp_path / "vq")).decoder.conv_in.weight, stages["vq"].decoder.conv_in.weight)
    assert first_stage_of("builtin:emoji").config.latent_channels == 8
    (tmp_path / "vq" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(CheckpointError, match="no first stage"):
        first_stage_of(str(tmp_path / "vq"))
    (tmp_path / "photos").mkdir()
    message = r"photos holds no model_index\.json and no config\.json; give the folder of a model or of a first stage$"
    with pytest.raises(CheckpointError, match=message):
        first_stage_of(str(tmp_path / "photos"))
