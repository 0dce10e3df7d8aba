"""A file that can't be decoded never ends a run, and what is odd about the data is said before the first step."""

import json

import numpy as np
import pytest
import torch
import toy
from PIL import Image
from safetensors.torch import load_file

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.config import load_recipe
from latentdiff.data.bad_files import BadFiles, SkipBadFiles
from latentdiff.data.stream import stream
from latentdiff.errors import BadFileError, LatentDiffWarning
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = pytest.mark.thorough


class Numbers(torch.utils.data.Dataset):
    """Numbers of which some are bad, and which of them were asked for."""

    def __init__(self, count, bad):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise BadFileError(f"{index} is bad")
        return torch.tensor(index)


def numbers(count, bad, folder, first_step=0, steps=10, seed=3, workers=0, max_share=0.5):
    bad_files = BadFiles(folder, count, max_share, fresh=first_step == 0)
    items = SkipBadFiles(Numbers(count, bad), [f"file {i}" for i in range(count)], bad_files, seed)
    batches = stream(items, 4, seed=seed, first_step=first_step, num_workers=workers)
    return torch.stack([next(batches) for _ in range(steps)])


def left_out(warnings):
    return sorted(str(found.message) for found in warnings if str(found.message).startswith("left out: "))


def test_replacements_depend_on_the_seed_and_the_number_alone(tmp_path, recwarn):
    bad = {2, 5}
    found = numbers(10, bad, tmp_path / "a")
    without = numbers(10, set(), tmp_path / "b")
    is_bad = torch.isin(without, torch.tensor(list(bad)))
    assert is_bad.any() and torch.equal(found[~is_bad], without[~is_bad])  # the others keep their place
    assert left_out(recwarn) == ["left out: 2 is bad", "left out: 5 is bad"]
    assert not torch.isin(found, torch.tensor(list(bad))).any()
    assert torch.equal(numbers(10, bad, tmp_path / "a", first_step=4, steps=6), found[4:])
    assert torch.equal(numbers(10, bad, tmp_path / "c", workers=2), found)
    lines = [json.loads(line) for line in (tmp_path / "a" / "bad_files.jsonl").read_text().splitlines()]
    assert sorted(line["file"] for line in lines) == ["file 2", "file 5"] and lines[0]["reason"].endswith("is bad")


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_files_end_the_run(tmp_path, workers):
    message = r"^3 of 10 images can't be decoded, more than max_bad_share 0\.2; see .* the last: . is bad$"
    with pytest.raises(InputError, match=message):
        numbers(10, {1, 2, 3}, tmp_path, max_share=0.2, workers=workers)
    numbers(2, {1}, tmp_path, max_share=0)  # one never does
    with pytest.raises(InputError, match="20 images in a row can't be decoded"):
        numbers(30, range(1, 30), tmp_path, max_share=1)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("vae") / "vae")


@pytest.fixture
def data(tmp_path):
    """Of 24 images one is cut off, and the label map of another is."""
    folder = toy.write(tmp_path / "data")
    for name in ("0red2.png", "maps/1blue0.png"):
        path = folder / name
        path.write_bytes(path.read_bytes()[:50])
    return folder


def weights_of(folder):
    return {f"{path.parent.name}.{k}": v for path in folder.rglob("*.safetensors") for k, v in load_file(path).items()}


@pytest.mark.parametrize("task", ["layout-to-image", "semantic-to-image", "super-resolution", "inpaint"])
def test_runs_go_on_and_resume_bit_for_bit(task, data, vae, tmp_path, recwarn):
    options = {"max_train_steps": 8, "checkpoint.steps": 4}  # 32 samples of 24: every image is visited
    whole = toy.train(task, data, vae, tmp_path / "whole", **options)
    bad = [json.loads(line)["file"] for line in (whole / "bad_files.jsonl").read_text().splitlines()]
    expected = ["0red2.png", *(["1blue0.png"] if task == "semantic-to-image" else [])]
    assert sorted(path.rpartition("/")[2] for path in bad) == expected
    assert len(left_out(recwarn)) == len(expected)
    toy.train(task, data, vae, tmp_path / "parts", **{**options, "max_train_steps": 4})
    parts = toy.train(task, data, vae, tmp_path / "parts", resume_from_checkpoint="latest", **options)
    first, second = weights_of(whole / "pipeline"), weights_of(parts / "pipeline")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_latent_scale_is_of_good_images(data, vae, tmp_path):
    output = toy.train(
        "unconditional",
        data,
        vae,
        tmp_path / "run",
        max_train_steps=1,
        **{"checkpoint.steps": 1, "data.random_flip": True},
    )
    moments = np.load(output / "latents" / "moments.npy").astype(np.float64)
    good = moments[np.abs(moments).max(axis=(1, 2, 3)) > 0]
    assert len(good) == len(moments) - 2
    mean, logvar = np.split(good, 2, axis=1)
    scale = DiffusionPipeline.from_pretrained(output / "pipeline").vae.config.scaling_factor
    assert np.isclose(scale**-2, mean.var() + np.exp(logvar).mean(), rtol=1e-6)


def first_stage(data, output, **options):
    recipe = {
        "data.train_data_dir": str(data),
        "output_dir": str(output),
        "data.resolution": toy.SIDE,
        "model": toy.VAE,
        "train_batch_size": 4,
        "max_train_steps": 2,
        "optimizer.learning_rate": 1e-3,
        "checkpoint.steps": 2,
        "logging_steps": 1,
    }
    return train_first_stage(load_recipe(FirstStageRecipe, None, {**recipe, **options}))


@pytest.mark.parametrize("channels", [1, 5])
def test_from_deep_images_to_a_pipeline(channels, tmp_path):
    """16-bit grey PNG, and arrays of five channels: both stages train, and the pipeline's images have as many."""
    data = tmp_path / "data"
    data.mkdir()
    for i in range(6):
        values = np.random.default_rng(i).integers(0, 2**16, (toy.SIDE, toy.SIDE, channels), dtype=np.uint16)
        Image.fromarray(values[..., 0]).save(data / f"{i}.png") if channels == 1 else np.save(data / f"{i}.npy", values)
    output = first_stage(data, tmp_path / "first")
    run = toy.train("unconditional", data, output / "vae", tmp_path / "second", max_train_steps=2)
    pipe = DiffusionPipeline.from_pretrained(run / "pipeline")
    assert pipe.vae.config.in_channels == channels
    options = {"num_inference_steps": 1, "seed": 0}
    assert pipe(output_type="np", **options).images.shape == (1, toy.SIDE, toy.SIDE, channels)
    assert pipe(output_type="pt", **options).images.shape == (1, channels, toy.SIDE, toy.SIDE)
    fill = toy.train("inpaint", data, output / "vae", tmp_path / "fill", max_train_steps=1)
    holes = np.zeros((toy.SIDE, toy.SIDE), bool)
    holes[4:8, 4:8] = True
    filled = DiffusionPipeline.from_pretrained(fill / "pipeline")(values, holes, output_type="np", **options).images[0]
    assert np.abs(filled - values / 65535)[~holes].max() < 1e-6 < np.abs(filled - values / 65535)[holes].max()
    if channels == 1:
        assert pipe(**options).images[0].mode == "L"
        with pytest.raises(ConfigError, match="first stage has 1 channels; super-resolution needs one of 3"):
            toy.train("super-resolution", data, output / "vae", tmp_path / "no")
    else:
        seen = []
        with pytest.raises(InputError, match=r"5 channels.*output_type 'np' or 'pt'"):
            pipe(callback_on_step_end=lambda *args: seen.append(1) or {}, **options)
        assert not seen  # said before anything is computed


def test_damaged_arrays_are_left_out(tmp_path):
    """The first of them too, which says how many channels there are."""
    data = tmp_path / "data"
    data.mkdir()
    for i in range(6):
        np.save(data / f"{i}.npy", np.full((toy.SIDE, toy.SIDE, 5), i, np.uint8))
    whole = (data / "0.npy").read_bytes()
    (data / "0.npy").write_bytes(whole.replace(b"(16, 16, 5)", b"(16, 16, (("))
    (data / "3.npy").write_bytes(whole[:500])
    options = {"data.max_bad_share": 0.5, "max_train_steps": 4, "data.value_range": [0, 5]}
    output = first_stage(data, tmp_path / "run", **options)
    bad = [json.loads(line) for line in (output / "bad_files.jsonl").read_text().splitlines()]
    assert sorted(line["file"].rpartition("/")[2] for line in bad) == ["0.npy", "3.npy"]
    assert all("cannot be read as an array" in line["reason"] for line in bad)


def test_one_image_is_enough(vae, tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (toy.SIDE, toy.SIDE), "red").save(tmp_path / "data" / "0.png")
    assert (first_stage(tmp_path / "data", tmp_path / "first") / "vae").exists()
    assert (toy.train("unconditional", tmp_path / "data", vae, tmp_path / "second") / "pipeline").exists()


def test_small_images_are_enlarged_with_a_warning(data, tmp_path):
    """Of the one that is cut off, the header tells the size."""
    Image.new("RGB", (toy.SIDE - 7, toy.SIDE)).save(data / "0red0.png")
    message = f"1 of 24 images are smaller than resolution {toy.SIDE} and will be enlarged; the smallest has 9 pixels"
    with pytest.warns(LatentDiffWarning, match=message):
        first_stage(data, tmp_path / "run", max_train_steps=1)


def test_channels_that_do_not_match(data, tmp_path):
    with pytest.raises(ConfigError, match="the images have 1 channels, but model has"):
        model = {**toy.VAE, "in_channels": 3, "out_channels": 3}
        first_stage(data, tmp_path / "run", model=model, **{"data.channels": 1})


def test_another_first_stage_does_not_go_on_with_the_latents(data, vae, tmp_path):
    toy.train("unconditional", data, vae, tmp_path / "run", max_train_steps=2)
    torch.manual_seed(1)
    other = toy.write_vae(tmp_path / "other")
    with pytest.raises(ConfigError, match="are of another first stage; resume with the first stage"):
        toy.train("unconditional", data, other, tmp_path / "run", resume_from_checkpoint="latest")
    before = np.load(tmp_path / "run" / "latents" / "moments.npy")
    toy.train("unconditional", data, other, tmp_path / "run", overwrite_output_dir=True)  # a new run encodes anew
    assert not np.array_equal(np.load(tmp_path / "run" / "latents" / "moments.npy"), before)
