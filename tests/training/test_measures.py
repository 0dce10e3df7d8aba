"""Metrics inside training: the numbers of `latentdiff evaluate`, the best weights by them, runs that end early."""

import json
import math
import shutil
import warnings

import pytest
import torch
import toy
from PIL import Image
from processes import Runs
from safetensors.torch import load_file
from small_features import SmallFeatures
from tiny_run import log as lines

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.config import load_recipe
from latentdiff.errors import LatentDiffWarning
from latentdiff.evaluation import samples
from latentdiff.evaluation.directions import HIGHER_IS_BETTER, higher_is_better
from latentdiff.evaluation.first_stage import FirstStageEvaluation
from latentdiff.evaluation.pairs import PERCEPTUAL
from latentdiff.evaluation.samples import evaluate_samples
from latentdiff.evaluation.set_metrics import SET_METRICS
from latentdiff.registry import FEATURE_EXTRACTORS, METRICS
from latentdiff.seeding import generator
from latentdiff.training.engine.best import Best
from latentdiff.training.engine.validation import choose_by
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")]
SMALL = {
    "validation.steps": 1,
    "validation.count": 12,
    "validation.samples": 0,
    "validation.inference_steps": 2,
    "max_train_steps": 4,
    "report_to": "none",
}
UNET = "pipeline/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def small_features(tmp_path_factory, monkeypatch):
    """A small extractor by the name "small", and a cache of features of its own."""
    monkeypatch.setitem(FEATURE_EXTRACTORS._entries, "small", SmallFeatures)
    cache = tmp_path_factory.mktemp("features")
    monkeypatch.setattr(samples, "default_cache", lambda: cache)
    return cache


def found(output, name):
    """The values of a number at each validation."""
    return [line[f"validation/{name}"] for line in lines(output) if f"validation/{name}" in line]


def first_stage(data, output, **options):
    values = {
        "output_dir": str(output),
        "data": {"train_data_dir": str(data), "resolution": toy.SIDE},
        "model": toy.VAE,
        "train_batch_size": 4,
        "max_train_steps": 2,
        "validation": {"steps": 1, "share": 0.5},
        "report_to": "none",
    }
    return train_first_stage(load_recipe(FirstStageRecipe, None, {**values, **options}))


def test_the_number_is_that_of_the_pipelines_samples(data, vae, tmp_path):
    """What the last validation measures are the samples of the pipeline that the run ends as."""
    metrics = ["frechet[small]", "precision[small]", "recall[small]"]
    output = toy.train("unconditional", data, vae, tmp_path / "run", **{**SMALL, "validation.metrics": metrics})
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    (tmp_path / "samples").mkdir()
    for start in range(0, 12, 4):  # train_batch_size at once
        for number, image in enumerate(pipe(4, seed=start, num_inference_steps=2).images, start):
            image.save(tmp_path / "samples" / f"{number:02d}.png")
    report = evaluate_samples(
        tmp_path / "samples", data, metrics=["frechet", "precision", "recall"], features="small", resolution=toy.SIDE
    )
    assert [result.protocol[-1 if "k" not in result.protocol[-1] else -2] for result in report.results] == [
        "images"
    ] * 3
    for result in report.results:
        name = result.name.replace("images", "train")
        assert found(output, name)[-1] == pytest.approx(result.value, rel=1e-5)
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")]  # samples are gone
    unwatched = toy.train("unconditional", data, vae, tmp_path / "unwatched", max_train_steps=4)
    assert same(output / UNET, unwatched / UNET)


def test_samples_have_the_conditions_of_the_held_out_images(data, vae, tmp_path):
    """Metrics of pairs compare each sample with the image whose condition it has."""
    held_out = toy.write(tmp_path / "held_out", grounds=[0])  # 12 images, so each once
    options = {"validation.data_dir": str(held_out), "validation.metrics": ["psnr"], "max_train_steps": 2}
    output = toy.train("super-resolution", data, vae, tmp_path / "run", **{**SMALL, **options})
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    rows, values = toy.lines(held_out), []
    for start in range(0, 12, 4):
        options = {"output_type": "pil", "num_inference_steps": 2, "seed": start}
        images = toy.call("super-resolution", pipe, held_out, rows[start : start + 4], **options)
        for row, image in zip(rows[start : start + 4], images, strict=True):
            x, y = (torch.tensor(list(one.convert("RGB").tobytes())) / 255 for one in (image, original(held_out, row)))
            values.append(-10 * math.log10(float((x - y).square().mean())))
    assert found(output, "psnr[12, held-out]")[-1] == pytest.approx(sum(values) / 12, rel=1e-4)
    assert found(output, "loss")  # is there as well, and doesn't choose
    state = json.loads((output / "checkpoint-2" / "state.json").read_text())
    assert state["best"]["name"] == "psnr[12, held-out]"


def original(folder, row):
    return Image.open(folder / row["file_name"])


def test_reconstructions_are_measured_as_evaluate_does(data, tmp_path):
    metrics = ["psnr", "ssim", "rfrechet[small]"]
    output = first_stage(data, tmp_path / "run", **{"validation.metrics": metrics, "validation.best": "ssim"})
    held_out = 12  # half of 24
    numbers = [found(output, f"{name}, held-out]")[-1] for name in ("psnr[12", "ssim[12", "rfrechet[small, none, 12")]
    assert held_out == 12 and found(output, "psnr")  # the mean over images that aren't rounded
    assert numbers[0] == pytest.approx(found(output, "psnr")[-1], abs=0.1)
    assert found(output, "best_step")[-1] in (1, 2) and (output / "best" / "vae" / "config.json").is_file()
    # The same images, taken from the folder by hand.
    order = torch.randperm(24, generator=generator(0)).tolist()[:12]
    (tmp_path / "held_out").mkdir()
    for number in sorted(order):
        name = toy.lines(data)[number]["file_name"]
        (tmp_path / "held_out" / name).write_bytes((data / name).read_bytes())
    evaluation = FirstStageEvaluation(
        str(output / "vae"),
        tmp_path / "held_out",
        tmp_path / "out",
        metrics=["psnr", "ssim", "rfrechet"],
        features="small",
    )
    evaluation.do(evaluation.shards(), lambda told: None)
    evaluation.sets().compute()
    report = evaluation.report()
    assert numbers == pytest.approx([report.value(name) for name in ("psnr", "ssim", "rfrechet")], rel=1e-3)


@pytest.mark.parametrize(("higher", "gaining"), [(True, [1, 3]), (False, [1, 4])])
def test_the_best_is_by_the_metrics_own_direction(higher, gaining):
    best, gains, ended = Best("x", higher, stop_after=2), [], []
    for step, value in enumerate([math.nan, 1.0, 1.0, 2.0, 0.5, math.nan]):
        gains += [step] if best.gains({"x": value}) else []
        best.add({"x": value}, step)
        ended += [step] if best.ends_run else []
    assert gains == gaining and (best.value, best.step) == ((2.0, 3) if higher else (0.5, 4))
    assert ended == ([5] if higher else [3])


def test_a_validation_without_the_number_counts_for_nothing():
    best = Best("x", False, stop_after=1)
    best.add({"x": 1.0}, 1)
    best.add({"y": 1.0}, 2)
    assert not best.ends_run and not best.gains({})
    best.add({"x": 1.0000001}, 3)  # the same to the digits of the log
    assert best.ends_run and best.step == 1


def test_every_metric_has_a_direction():
    names = {name for metric in SET_METRICS for name in (*metric.names, *(metric.otherwise or ()))}
    assert {*names, *METRICS.names(), *PERCEPTUAL, "ms_ssim"} <= set(HIGHER_IS_BETTER)
    assert [higher_is_better(name) for name in ("psnr", "fid", "rfid", "lpips", "ris")] == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_a_metric_of_ones_own_says_its_direction(monkeypatch):
    def error(images, targets):
        return (images - targets).abs().mean(dim=(1, 2, 3))

    monkeypatch.setitem(METRICS._entries, "error", error)
    with pytest.raises(ConfigError, match="whether a higher error is better is not known; set the attribute higher_is"):
        higher_is_better("error")
    error.higher_is_better = False
    assert higher_is_better("error") is False


def test_a_run_without_gain_ends_as_a_success_and_stays_ended(data, vae, tmp_path, capfd):
    """With a learning rate that changes nothing, the first validation is the best of all."""
    options = {**SMALL, "validation.metrics": ["frechet[small]"], "optimizer.learning_rate": 1e-30}
    options |= {"max_train_steps": 9, "checkpoint.steps": 9}
    output = toy.train("unconditional", data, vae, tmp_path / "run", **options, **{"validation.stop_after": 2})
    name = "frechet[small, none, 12, train]"
    value = found(output, name)[0]
    line = f"ended after step 3, as {name} has not gained in 2 validations; best/ has that of step 1, {value:g}"
    assert line in capfd.readouterr().err
    assert found(output, name) == [value] * 3 and found(output, "without_gain") == [0, 1, 2]
    assert (output / "checkpoint-3").is_dir() and (output / "pipeline").is_dir()
    DiffusionPipeline.from_pretrained(output / "best" / "pipeline")
    before = (output / "log.jsonl").read_bytes()
    again = {**options, "resume_from_checkpoint": "latest"}
    toy.train("unconditional", data, vae, output, **again, **{"validation.stop_after": 2})
    assert (output / "log.jsonl").read_bytes() == before and line in capfd.readouterr().err
    toy.train("unconditional", data, vae, output, **again, **{"validation.stop_after": 3})
    assert len(found(output, name)) == 4 and (output / "checkpoint-4").is_dir()


def test_a_resumed_run_has_the_best_and_the_patience_of_the_whole(data, vae, tmp_path):
    options = {**SMALL, "validation.metrics": ["frechet[small]", "recall[small]"], "validation.stop_after": 2}
    options |= {"max_train_steps": 9, "optimizer.learning_rate": 0.05, "checkpoint.steps": 1, "ema.decay": 0.0}
    whole = toy.train("class-to-image", data, vae, tmp_path / "whole", **options)
    steps, ended = found(whole, "best_step"), len(found(whole, "best_step"))
    assert 1 < steps[-1] == ended - 2 < 7, "or there is nothing to know"
    for stopped in (ended - 2, ended - 1):  # right after the best, and when patience is nearly out
        parts = tmp_path / f"parts-{stopped}"
        toy.train("class-to-image", data, vae, parts, **{**options, "max_train_steps": stopped})
        (parts / "log.jsonl").rename(parts / "lost")  # the checkpoint is enough
        toy.train("class-to-image", data, vae, parts, **options, resume_from_checkpoint="latest")
        assert lines(parts) == [line for line in lines(whole) if line["step"] > stopped]
        for name in (UNET, f"best/{UNET}"):
            assert same(whole / name, parts / name)
        states = [(path / f"checkpoint-{ended}" / "state.json").read_text() for path in (whole, parts)]
        assert states[0] == states[1]


def same(one, other):
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_kill_in_the_middle_of_saving_the_best_loses_nothing(data, vae, tmp_path):
    """At any rename of `best/pipeline`, the earlier best can be loaded, and the run goes on to the same end."""
    held_out = str(toy.write(tmp_path / "held_out", grounds=[0]))
    options = {"validation.steps": 1, "validation.data_dir": held_out, "validation.samples": 0, "max_train_steps": 2}
    options |= {"checkpoint.steps": 1, "report_to": "none", "optimizer.learning_rate": 2e-3, "ema.decay": 0}
    runs, given = Runs(), {"task": "unconditional", "data": str(data), "vae": str(vae)}
    try:
        whole = toy.train("unconditional", data, vae, tmp_path / "whole", **options)
        assert found(whole, "best_step") == [1, 2], "or the best is not replaced"
        for call in range(1, 20):
            output = tmp_path / str(call)
            job = {"call": "killed_in_best", **given, "nth": call, **options}
            (code,), _ = runs(output, **job)
            if code == 0:
                break
            assert code == -9
            if call > 1:  # the first time there was nothing to lose
                DiffusionPipeline.from_pretrained(output / "best" / "pipeline")
            go_on = {"resume_from_checkpoint": "latest"} if list(output.glob("checkpoint-*")) else {}
            assert runs(output, call="pipeline", shards=None, **given, **options, **go_on)[0] == [0]
            assert same(whole / "best" / UNET, output / "best" / UNET) and lines(output) == lines(whole)
            assert [path.name for path in (output / "best").iterdir()] == ["pipeline"]
        assert call == 4  # one rename at the first save, two at the second
    finally:
        runs.close()


def test_the_reference_is_computed_once(data, vae, tmp_path, monkeypatch, small_features):
    """A second run on the same images finds their features; its own samples' are left nowhere."""
    seen = []
    plain = SmallFeatures.forward
    monkeypatch.setattr(SmallFeatures, "forward", lambda self, images: seen.append(1) or plain(self, images))
    options = {**SMALL, "validation.metrics": ["frechet[small]"], "max_train_steps": 1}
    for name, blocks in (("first", 3 + 2), ("second", 2)):  # 24 images and 12 samples, 8 at once
        toy.train("unconditional", data, vae, tmp_path / name, **options)
        assert len(seen) == blocks
        seen.clear()
    assert len(list(small_features.iterdir())) == 1


@pytest.mark.slow
def test_two_processes_share_the_work(data, vae, tmp_path):
    """The same number as of one process, whose batches are as large; and both know when to stop."""
    pytest.importorskip("efficientnet_lite_pytorch")
    options = {**SMALL, "validation.metrics": ["frechet[efficientnet_lite0]", "recall[efficientnet_lite0]"]}
    options |= {"optimizer.learning_rate": 1e-30, "train_batch_size": 2, "validation.stop_after": 1}
    runs, given = Runs(), {"call": "pipeline", "shards": None, "task": "unconditional", "data": str(data)}
    try:
        for count, name in ((1, "one"), (2, "two")):
            assert runs(tmp_path / name, count, **given, vae=str(vae), **options)[0] == [0] * count
    finally:
        runs.close()
    one, two = ([line for line in lines(tmp_path / name) if "validation/best_step" in line] for name in ("one", "two"))
    assert [line["step"] for line in one] == [1, 2] and len(one[0]) == 6
    assert [{**line, "images": 2 * line["images"]} for line in one] == two


KNOWN = {"validation.steps": 1, "validation.inference_steps": 1, "validation.count": 12}
BAD = {
    "unknown metric": (
        {"validation.metrics": ["frchet[small]"]},
        ConfigError,
        r"validation.metrics has 'frchet\[small\]'; did you mean 'frechet'",
    ),
    "unknown features": ({"validation.metrics": ["frechet[smal]"]}, ConfigError, "'smal'; did you mean 'small'"),
    "no name": ({"validation.metrics": ["frechet[small"]}, ConfigError, r"write NAME or NAME\[FEATURES\]"),
    "twice": ({"validation.metrics": ["kid", "kid"]}, ConfigError, "validation.metrics has kid twice; name each once"),
    "fid of others": ({"validation.metrics": ["fid[small]"]}, InputError, "validation.metrics: the features are small"),
    "too few samples": (
        {"validation.metrics": ["kid[small]"]},
        InputError,
        "validation.metrics: kid can't be computed: 12 samples are given, and it needs 1000",
    ),
    "too few for neighbours": (
        {"validation.metrics": ["recall[small]"], "validation.count": 3},
        InputError,
        "validation.metrics: precision and recall can't be computed: 3 samples are given, and it needs 4",
    ),
    "too many of the reference": (
        {"validation.metrics": ["frechet[small]"], "validation.reference_count": 25},
        InputError,
        "validation.metrics: 25 images of train are asked for; it has 24",
    ),
    "pairs without a condition": (
        {"validation.metrics": ["psnr"]},
        ConfigError,
        "validation.metrics has 'psnr', but samples without a condition have no originals",
    ),
    "no reference": (
        {"validation.metrics": ["frechet[small]"], "validation.reference": "held-out"},
        ConfigError,
        "validation.reference is 'held-out', but no image is held out; give data_dir, or 'train'",
    ),
    "best that is not measured": (
        {"validation.metrics": ["frechet[small]"], "validation.best": "loss"},
        ConfigError,
        r"validation.best is 'loss', which is not measured; known: frechet\[small\]",
    ),
    "nothing that could gain": (
        {"validation.stop_after": 1},
        ConfigError,
        "validation.stop_after is 1, but nothing is measured that could gain; give data_dir, or metrics",
    ),
    "count without metrics": ({"validation.count": 9}, ConfigError, "validation.count is given without metrics"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line_before_anything_is_written(data, vae, tmp_path, name):
    options, kind, message = BAD[name]
    given = {**KNOWN, **options} if "validation.metrics" in options else {"validation.steps": 1, **options}
    with pytest.raises(kind, match=message) as caught:
        toy.train("unconditional", data, vae, tmp_path / "out", **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_the_nearest_good_values_are_taken(data, vae, tmp_path):
    """Those beside the bad ones: four samples for recall, all 24 of the reference."""
    options = {"validation.metrics": ["recall[small]"], "validation.count": 4, "validation.reference_count": 24}
    output = toy.train("unconditional", data, vae, tmp_path, **{**SMALL, **options, "max_train_steps": 1})
    assert len(found(output, "recall[small, none, 4, train, k=3]")) == 1


def test_metrics_without_validation_are_said_to_go_unused(data, vae, tmp_path):
    with pytest.warns(LatentDiffWarning, match="validation.metrics goes unused, as validation.steps is 0"):
        toy.train("unconditional", data, vae, tmp_path, **{"validation.metrics": ["kid"], "max_train_steps": 1})


class Measured:
    """Metrics of which the second is better if higher."""

    def __init__(self):
        self.names = {"a": "a[1]", "b": "b[1]"}

    def higher_is_better(self, text):
        return text == "b"


@pytest.mark.parametrize(
    ("best", "name", "higher"), [(None, "a[1]", False), ("b", "b[1]", True), ("loss", "loss", False)]
)
def test_the_first_metric_chooses_unless_another_is_named(data, best, name, higher):
    options = {"validation.steps": 1, "validation.metrics": ["a", "b"], "validation.data_dir": "held"}
    recipe = toy.recipe("unconditional", data, data, "out", **options, **{"validation.best": best})
    found = choose_by(Measured(), recipe)
    assert (found.name, found.higher_is_better) == (name, higher)


def test_samples_that_are_not_finite_end_no_run(data, vae, tmp_path, monkeypatch):
    from latentdiff.errors import NonFiniteError
    from latentdiff.training.diffusion.samples import ValidationSampler

    def broken(self, batch, numbers):
        raise NonFiniteError("the images hold values that are not finite")

    monkeypatch.setattr(ValidationSampler, "__call__", broken)
    options = {**SMALL, "validation.metrics": ["frechet[small]"], "max_train_steps": 1}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        output = toy.train("unconditional", data, vae, tmp_path, **options)
    assert any("no metrics at step 1: the images hold values" in str(warning.message) for warning in caught)
    assert (output / "pipeline").is_dir() and not (output / "best").exists()


def test_images_that_cannot_be_decoded_are_in_no_reference(data, vae, tmp_path, small_features):
    """Neither in a diffusion model's, even if it is the first one, nor in a first stage's."""
    folder = toy.rewritten(data, tmp_path / "data")
    (folder / toy.lines(folder)[0]["file_name"]).write_bytes(b"no image")
    options = {**SMALL, "validation.metrics": ["frechet[small]"], "max_train_steps": 1}
    output = toy.train("unconditional", folder, vae, tmp_path / "diffusion", **options)
    assert len(found(output, "frechet[small, none, 12, train]")) == 1
    (computed,) = [json.loads(path.read_text()) for path in small_features.glob("*/computation.json")]
    assert computed["count"] == 23
    options = {"validation.share": 0.0, "validation.data_dir": str(folder), "max_train_steps": 1}
    output = first_stage(toy.write(tmp_path / "other"), tmp_path / "vae", **{"validation.metrics": ["psnr"]}, **options)
    assert len(found(output, "psnr[23, held-out]")) == 1


def test_a_run_whose_best_folder_was_deleted_begins_to_choose_anew(data, vae, tmp_path):
    """Else nothing would be kept until a later validation is better than weights that are gone."""
    options = {**SMALL, "validation.metrics": ["frechet[small]"], "max_train_steps": 2}
    output = toy.train("unconditional", data, vae, tmp_path / "run", **options)
    shutil.rmtree(output / "best")
    going_on = {**options, "max_train_steps": 3, "resume_from_checkpoint": "latest"}
    with pytest.warns(LatentDiffWarning, match=r"best is gone, which was of step [12]; the next"):
        toy.train("unconditional", data, vae, output, **going_on)
    assert (output / "best").is_dir() and found(output, "best_step")[-1] == 3
    state = json.loads((output / "checkpoint-3" / "state.json").read_text())
    assert state["best"]["step"] == 3 and state["best"]["without_gain"] == 0
