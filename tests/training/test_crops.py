"""Runs on random crops and aspect buckets: both stages, resumed and on several processes to the same bits."""

import json

import numpy as np
import pytest
import torch
import toy
from PIL import Image
from processes import Runs
from safetensors.torch import load_file
from tiny_run import log

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.cli.main import main
from latentdiff.config import load_recipe
from latentdiff.data.latent_cache import LatentCache, measure_scale
from latentdiff.seeding import generator
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

SIZES = [(32, 32), (40, 30), (30, 40), (48, 32), (32, 48), (40, 40)] * 2  # width, height
RANDOM = {"data.crop": "random", "data.random_flip": True, "data.random_rotate": True, "data.colour_jitter": 0.1}
BUCKETS = {"data.buckets.multiple": 4, "data.crop": "random", "data.crops_per_image": 2, "data.random_flip": True}
KINDS = {"random": RANDOM, "buckets": BUCKETS, "grid": {"data.crop": "grid"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images of mixed shapes with all that can be said of them: a coloured box on a ground."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    (folder / "maps").mkdir()
    lines = []
    for number, (width, height) in enumerate(SIZES):
        pixels, label_map = np.full((height, width, 3), toy.GROUNDS[number % 2], np.uint8), np.zeros((height, width))
        colour, (x, y) = list(toy.COLOURS)[number % 3], rng.integers(0, 16, 2).tolist()
        pixels[y : y + 14, x : x + 14] = toy.COLOURS[colour]
        label_map[y : y + 14, x : x + 14] = toy.CLASSES.index(colour)
        name = f"{number:02d}.png"
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(label_map.astype(np.uint8)).save(folder / "maps" / name)
        objects = [{"class": colour, "box": [x, y, 14, 14]}]
        said = {"text": f"a {colour} star", "label": colour, "objects": objects, "label_map": f"maps/{name}"}
        lines.append(json.dumps({"file_name": name, **said}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "vocab.txt").write_text("\n".join([*toy.SPECIAL, *toy.WORDS]))
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return toy.write_vae(tmp_path_factory.mktemp("stage") / "vae")


@pytest.fixture(scope="module")
def runs():
    found = Runs()
    yield found
    found.close()


def first_stage(data, output, **options):
    values = {"data.train_data_dir": str(data), "data.resolution": 16, "model": toy.VAE, "train_batch_size": 4}
    values |= {"max_train_steps": 4, "checkpoint.steps": 2, "logging_steps": 1, "output_dir": str(output)}
    return train_first_stage(load_recipe(FirstStageRecipe, None, {**values, "report_to": "none", **options}))


def checkpoint(output, step=4):
    return load_file(output / f"checkpoint-{step}" / "model.safetensors")


def assert_same(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
def test_a_first_stage_goes_on_bit_for_bit(data, tmp_path, kind):
    options = {name: value for name, value in KINDS[kind].items() if name != "data.crops_per_image"}
    first_stage(data, tmp_path / "whole", **options)
    first_stage(data, tmp_path / "parts", **options, max_train_steps=2)
    first_stage(data, tmp_path / "parts", **options, resume_from_checkpoint="latest")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "task", ["unconditional", "layout-to-image", "semantic-to-image", "super-resolution", "inpaint"]
)
def test_a_model_of_any_condition_goes_on_bit_for_bit(data, vae, tmp_path, kind, task):
    options = KINDS[kind]
    toy.train(task, data, vae, tmp_path / "whole", **options)
    toy.train(task, data, vae, tmp_path / "parts", **options, max_train_steps=2)
    toy.train(task, data, vae, tmp_path / "parts", **options, resume_from_checkpoint="latest")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    if task == "unconditional":
        pipe = DiffusionPipeline.from_pretrained(tmp_path / "whole" / "pipeline")
        image = pipe(height=12, width=20, num_inference_steps=2, seed=0).images[0]  # a bucket's size
        assert image.size == (20, 12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "buckets"])
def test_two_processes_see_the_samples_of_one_and_go_on_bit_for_bit(runs, data, vae, tmp_path, kind):
    given = {"task": "unconditional", "data": str(data), "vae": str(vae), "shards": None, "call": "pipeline"}
    given |= {**KINDS[kind], "logging_steps": 1, "report_to": "none"}
    halves = {**given, "train_batch_size": 2}
    assert runs(tmp_path / "one", **given)[0] == [0]
    assert runs(tmp_path / "two", 2, **halves)[0] == [0, 0]
    for one, two in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert runs(tmp_path / "parts", 2, **halves, max_train_steps=2)[0] == [0, 0]
    assert runs(tmp_path / "parts", 2, **halves, resume_from_checkpoint="latest")[0] == [0, 0]
    assert_same(checkpoint(tmp_path / "two"), checkpoint(tmp_path / "parts"))


def test_latents_of_several_sizes_are_those_of_the_images(data, vae, tmp_path):
    from latentdiff.data.bad_files import BadFiles
    from latentdiff.data.encoding import LatentEncoding
    from latentdiff.evaluation.first_stage import first_stage_of
    from latentdiff.training.data import open_to_encode

    stage = first_stage_of(str(vae))
    recipe = toy.recipe("unconditional", data, vae, tmp_path / "run", **BUCKETS)
    images = open_to_encode(recipe.data, recipe, 3)
    work = LatentEncoding(tmp_path / "latents", stage, images, BadFiles(None, len(images), 0.1), shard=5)
    work.begin(replace=False)
    work.do(work.shards(), lambda told: None)
    assert work.finish()
    cache = work.cache()
    assert isinstance(cache, LatentCache) and len(cache) == 4 * len(images)
    values = []
    for row in range(len(cache)):
        copy, image = divmod(row, len(images))
        pixels = images.at(image, images.views.copy(image, copy))
        with torch.no_grad():
            expected = stage.encode(pixels[None]).latent_dist.parameters[0]
        assert cache[row].shape == expected.shape
        assert torch.allclose(cache[row], expected, rtol=0, atol=2e-3)
        mean, logvar = expected.double().chunk(2)
        values.append((mean.sum(), mean.square().sum() + logvar.clamp(-30, 20).exp().sum(), mean.numel()))
    assert len({cache[row].shape for row in range(len(cache))}) > 2
    total, squares, count = (float(sum(part)) for part in zip(*values, strict=True))
    std = (squares / count - (total / count) ** 2) ** 0.5
    assert measure_scale(cache, 4, len(cache), generator(0)) == pytest.approx(1 / std, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.buckets.multiple": 2}, "data.buckets.multiple is 2; this model needs a multiple of 4"),
        ({"data.buckets": {"multiple": 4, "max_ratio": 1.4}}, "4 of 12 images are beyond all buckets"),
        ({"data.crop": "none"}, "8 of 12 images are not square"),
        ({"data.crop": "grid", "data.resolution": 32}, "4 of 12 images are smaller than resolution 32"),
    ],
)
def test_what_does_not_fit_ends_a_run_before_its_first_step(data, vae, tmp_path, options, message):
    with pytest.raises((ConfigError, InputError), match=message):
        toy.train("unconditional", data, vae, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_multiple_that_the_first_stage_does_not_take(data, vae, tmp_path, capsys):
    message = "buckets.multiple is 1; this first stage needs a multiple of 2"
    with pytest.raises(ConfigError, match=message):
        first_stage(data, tmp_path / "run", **{"data.buckets.multiple": 1})
    words = ["encode", str(vae), str(data), str(tmp_path / "latents"), "--resolution", "16", "--quiet"]
    assert main([*words, "--buckets.multiple", "1"]) == 2
    assert message in capsys.readouterr().err
    assert main([*words, "--buckets.multiple", "2"]) == 0


def test_a_check_tells_it_too(data, tmp_path, capsys):
    words = ["data", "check", str(data), "--resolution", "32", "-o", str(tmp_path / "check.png"), "--quiet"]
    assert main(words) == 0
    assert main([*words, "--crop", "grid"]) == 1
    assert "4 of 12 images are smaller than resolution 32" in capsys.readouterr().out
