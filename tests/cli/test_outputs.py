"""What commands write beside PNG files: arrays of all samples, JPEG and WebP; and the solvers' options."""

import os
import resource
import shlex
import signal
import tracemalloc
from typing import get_args

import numpy as np
import pytest
import torch
from forked import all_ended, launched
from PIL import Image

from latentdiff import ClassToImagePipeline, DiffusionPipeline, TextToImagePipeline, VQModel
from latentdiff.cli.batch.array_file import ArrayFile, Placed
from latentdiff.cli.main import main
from latentdiff.cli.options import TimestepSpacing
from latentdiff.io.generated import read_parameters
from latentdiff.schedulers.noise_schedule import SPACINGS

pytestmark = pytest.mark.thorough


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def sample(run, models):
    """Runs `sample` with two steps of a tiny model; returns the lines it prints."""

    def call(*argv, model=models["sample"], seeds="0-6"):
        code, out, err = run("sample", "--model", model, "--steps", 2, "--seed", seeds, "--batch-size", 3, *argv)
        assert (code, err) == (0, [])
        return out

    return call


def test_an_array_holds_the_pixels_of_the_files(sample, tmp_path):
    assert sample("-o", "new/all.npz") == ["new/all.npz\tseed 0-6"]
    sample("-o", "files")
    with np.load("new/all.npz") as found:
        assert found.files == ["arr_0"]
        images = found["arr_0"]
    assert images.dtype == np.uint8 and images.shape == (7, 16, 16, 3) and images.flags.c_contiguous
    assert all(np.array_equal(image, pixels(f"files/{seed:06d}.png")) for seed, image in enumerate(images))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["all.npz"]


@pytest.mark.parametrize("labels", [[], ["--label", "dog", "0", "4"]])
def test_the_classes_of_an_array_are_numbers_beside_it(sample, models, labels):
    sample("-o", "all.npz", *labels, model=models["class"], seeds="2-8")
    taken = [2, 0, 4] if labels else range(5)
    with np.load("all.npz") as found:
        assert found.files == ["arr_0", "arr_1"] and found["arr_1"].dtype == np.int64
        assert found["arr_1"].tolist() == [taken[seed % len(taken)] for seed in range(2, 9)]
        third = found["arr_0"][2]
    pipe = ClassToImagePipeline.from_pretrained(models["class"])
    again = pipe(taken[4 % len(taken)], seed=4, num_inference_steps=2).images[0]
    assert np.abs(np.asarray(again, int) - third).max() <= 1


def test_an_interrupted_array_goes_on_and_comes_out_the_same(sample, run, models, tmp_path):
    sample("-o", "whole.npz", seeds="0-59")

    def interrupt(signal_number, frame):
        made = tmp_path / "parts.npz.partial" / "made"
        if made.exists() and made.read_bytes().count(1) >= 6:
            signal.setitimer(signal.ITIMER_REAL, 0)  # once: a second one would interrupt the cleaning up
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    command = ["sample", "--model", models["sample"], "--steps", 2, "--seed", "0-59", "--batch-size", 3]
    try:
        assert run(*command, "-o", "parts.npz") == (130, [], [])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not os.path.exists("parts.npz")
    code, out, err = run(*command, "-o", "parts.npz", "--steps", 3)
    assert (code, out) == (2, []) and "parts.npz.partial holds images that were made with other options" in err[0]
    first, last = sample("-o", "parts.npz", seeds="0-59")
    made, kept = (int(word) for word in first.split() if word.isdigit())
    assert made + kept == 60 and kept >= 6 and last == "parts.npz\tseed 0-59"
    assert (tmp_path / "parts.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not os.path.exists("parts.npz.partial")


def test_processes_fill_one_array(sample, monkeypatch, tmp_path):
    sample("-o", "one.npz")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert sample("-o", "two.npz") == [
        "two.npz.partial: some images are missing; run the same command again when all processes have ended"
    ]
    monkeypatch.setenv("RANK", "1")
    assert sample("-o", "two.npz") == []
    monkeypatch.setenv("RANK", "0")
    assert sample("-o", "two.npz")[-1] == "two.npz\tseed 0-6"
    assert (tmp_path / "two.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


@pytest.mark.thorough
def test_processes_that_know_of_one_another_fill_one_array(sample, models, tmp_path):
    sample("-o", "one.npz")
    command = ["sample", "--model", models["sample"], "--steps", "2", "--seed", "0-6", "--batch-size", "3"]
    ran = all_ended(launched(lambda: main([*command, "-o", "two.npz"])))
    assert [process.returncode for process in ran] == [0, 0], ran
    assert (tmp_path / "two.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


def test_a_finished_array_is_replaced_only_if_that_is_said(sample, run, models, tmp_path):
    sample("-o", "all.npz")
    before = (tmp_path / "all.npz").read_bytes()
    code, out, err = run("sample", "--model", models["sample"], "--seed", "7-9", "-o", "all.npz")
    assert (code, out) == (2, []) and "all.npz exists already; choose another --output" in err[0]
    assert (tmp_path / "all.npz").read_bytes() == before
    sample("-o", "all.npz", "--overwrite", seeds="7-9")
    assert np.load("all.npz")["arr_0"].shape == (3, 16, 16, 3)


def test_room_for_an_array_is_taken_before_the_first_image(run, models, tmp_path):
    """A limit on the size of files stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code, out, err = run("sample", "--model", models["sample"], "--steps", 1, "--seed", "0-999", "-o", "all.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out, len(err)) == (2, [], 1)
    assert "cannot write all.npz: File too large; free some space or choose another --output" in err[0]
    assert not os.path.exists("all.npz")


def test_the_memory_of_an_array_does_not_grow_with_its_images(tmp_path):
    image = Image.new("RGB", (64, 64))

    def peak(count):
        tracemalloc.start()
        array = ArrayFile(tmp_path / f"{count}.npz", count, {})
        for place in range(0, count, 4):
            array.put([Placed(number, image, None) for number in range(place, place + 4)])
        assert array.finish()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)
    assert peak(800) <= 1.1 * peak(200)  # the whole would be 9.8 MB and 2.5, and what is copied at once is 1


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp", "A.JPG"])
def test_an_image_of_another_kind_is_made_again_from_its_parameters(run, models, tmp_path, name):
    options = ("--model", models["generate"], "--steps", 2, "--seed", 5, "--scheduler", "ddpm", "--temperature", 0.5)
    assert run("generate", "a red dog", *options, "-o", name)[0] == 0
    _, out, _ = run("info", name)
    command = shlex.split(out[-1].removeprefix("command: "))
    assert run(*command[1:2], "-o", f"again-{name}", *command[2:])[0] == 0
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    run("generate", "a red dog", *options, "-o", "a.png")
    assert read_parameters(name) == read_parameters("a.png")
    assert np.abs(pixels(name).astype(int) - pixels("a.png")).mean() < 25  # 16 pixels of noise are hard for both


def test_feature_caching_is_that_of_python_and_is_made_again(run, models, tmp_path):
    options = ("--model", models["generate"], "--steps", 4, "--seed", 5)
    cached = ("--cache-interval", 2, "--cache-branch", 1, "--cache-center", 0.9, "--cache-power", 2)
    assert run("generate", "a dog", *options, *cached, "-o", "a.png")[0] == 0
    assert run("generate", "a dog", *options, "-o", "b.png")[0] == 0
    pipe = DiffusionPipeline.from_pretrained(models["generate"])
    features = {"cache_interval": 2, "cache_branch": 1, "cache_center": 0.9, "cache_power": 2.0}
    again = pipe("a dog", num_inference_steps=4, seed=[5], **features).images[0]
    assert np.array_equal(pixels("a.png"), np.asarray(again))
    assert not np.array_equal(pixels("a.png"), pixels("b.png"))
    found = read_parameters("a.png")
    assert {name: found[name] for name in features} == features
    assert not features.keys() & set(read_parameters("b.png"))
    _, out, _ = run("info", "a.png")
    command = shlex.split(out[-1].removeprefix("command: "))
    assert run(*command[1:2], "-o", "again.png", *command[2:])[0] == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_folder_of_another_kind(run, models, tmp_path):
    for kind, suffix in (("jpeg", ".jpg"), ("webp", ".webp"), ("png", ".png")):
        options = ("--model", models["sample"], "--steps", 1, "--seed", "0-1", "--format", kind, "-o", kind)
        assert run("sample", *options)[1] == [f"{kind}/00000{n}{suffix}\tseed {n}" for n in (0, 1)]
        assert run("sample", *options)[1] == [f"{kind}: 0 made, 2 existed already"]
    options = ("--model", models["generate"], "--steps", 1, "--seed", 3, "--format", "webp")
    assert run("generate", "a dog", *options)[1] == ["a-dog-seed3.webp\tseed 3"]
    assert run("generate", "a dog", *options, "-n", 2, "--grid")[1] == ["a-dog-seed3-grid.webp\tseed 3-4"]


@pytest.mark.parametrize(
    ("message", "argv"),
    [
        ("--output is a.png, but --format is jpeg", ["generate", "a", "-o", "a.png", "--format", "jpeg"]),
        ("--output is a.npz, an array, but --format is png", ["sample", "-o", "a.npz", "--format", "png"]),
        ("only latentdiff sample writes arrays", ["generate", "a", "-o", "a.npz"]),
        ("--format: 'gif' is given; known: jpeg, png, webp", ["generate", "a", "--format", "gif"]),
        ("images are written as PNG, JPEG or WebP", ["generate", "a", "-o", "a.tif"]),
        ("--temperature: '-1' is given; it must be a number of at least 0", ["generate", "a", "--temperature", "-1"]),
        ("--temperature: 'nan' is given", ["generate", "a", "--temperature", "nan"]),
        ("--cache-interval: '0' is given", ["generate", "a", "--cache-interval", "0"]),
        ("--cache-branch: '-1' is given", ["generate", "a", "--cache-interval", "2", "--cache-branch", "-1"]),
        ("--cache-branch is given without a --cache-interval above 1", ["generate", "a", "--cache-branch", "0"]),
        ("--cache-center: '1.1' is given", ["generate", "a", "--cache-interval", "2", "--cache-center", "1.1"]),
        (
            "--cache-power is given without --cache-center",
            ["generate", "a", "--cache-interval", "2", "--cache-power", "2"],
        ),
        ("--cache-center is given without a --cache-interval above 1", ["generate", "a", "--cache-center", "0.5"]),
        ("--timestep-spacing: 'uneven' is given; known: leading", ["generate", "a", "--timestep-spacing", "uneven"]),
    ],
)
def test_wrong_outputs_and_options_are_one_line(fails, message, argv):
    fails(message, *argv, "--model", "nothing")


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("--temperature is 0.5, but the steps of DDIMScheduler add no noise", ["--temperature", "0.5"]),
        (
            "--cache-branch is 4, but this network has the branches 0 to 3",
            ["--cache-interval", "2", "--cache-branch", "4"],
        ),
        ("--temperature is 0.5, but the steps of EulerSch", ["--temperature", "0.5", "--scheduler", "euler"]),
        ("--quantize-denoised is for models with a VQ first stage", ["--quantize-denoised"]),
        ("--timestep-spacing is original, but LCMScheduler", ["--timestep-spacing", "original", "--scheduler", "lcm"]),
    ],
)
@pytest.mark.parametrize("command", ["generate", "sample"])
def test_options_that_do_not_apply_are_one_line(fails, models, command, message, options):
    words = ["a dog"] if command == "generate" else []
    fails(message, command, *words, "--model", models[command], "--steps", 2, "-o", "a", *options)


def test_the_spacings_are_the_schedulers():
    assert set(get_args(TimestepSpacing)) == set(SPACINGS)


@pytest.mark.parametrize("scheduler", [None, "plms", "euler"])
def test_a_spacing_is_that_of_python(run, models, scheduler):
    """Seven steps don't divide a thousand; the original's are uneven."""
    named = [] if scheduler is None else ["--scheduler", scheduler]
    options = ("--model", models["generate"], "--steps", 7, "--seed", 0, *named)
    assert run("generate", "a dog", *options, "--timestep-spacing", "original", "-o", "a.png")[0] == 0
    assert run("generate", "a dog", *options, "-o", "b.png")[0] == 0
    pipe = DiffusionPipeline.from_pretrained(models["generate"])
    pipe.set_scheduler(scheduler or "ddim", timestep_spacing="original")
    again = pipe("a dog", num_inference_steps=7, seed=[0], guidance_scale=5.0).images[0]
    assert np.array_equal(pixels("a.png"), np.asarray(again))
    assert not np.array_equal(pixels("a.png"), pixels("b.png"))
    assert read_parameters("a.png")["timestep_spacing"] == "original"
    assert "timestep_spacing" not in read_parameters("b.png")


def test_a_spacing_keeps_the_other_options_of_the_models_solver(run, models, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(models["generate"])
    pipe.set_scheduler("ddpm", variance_type="fixed_large")
    pipe.save_pretrained("model")
    options = ("--model", "model", "--steps", 7, "--seed", 0, "--timestep-spacing", "original", "-o", "a.png")
    assert run("generate", "a dog", *options)[0] == 0
    pipe.set_scheduler("ddpm", variance_type="fixed_large", timestep_spacing="original")
    again = pipe("a dog", num_inference_steps=7, seed=[0], guidance_scale=5.0).images[0]
    assert np.array_equal(pixels("a.png"), np.asarray(again))


def test_steps_from_the_nearest_codes_are_those_of_python(run, models):
    torch.manual_seed(0)
    vae = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        num_vq_embeddings=6,
        sample_size=16,
    ).eval()
    torch.nn.init.normal_(vae.quantize.embedding.weight)
    pipe = TextToImagePipeline.from_pipe(TextToImagePipeline.from_pretrained(models["generate"]), vae=vae)
    pipe.save_pretrained("vq")
    options = ("--model", "vq", "--steps", 4, "--seed", 0)
    assert run("generate", "a dog", *options, "--quantize-denoised", "-o", "a.png")[0] == 0
    assert run("generate", "a dog", *options, "-o", "b.png")[0] == 0
    again = pipe("a dog", num_inference_steps=4, seed=[0], guidance_scale=5.0, quantize_denoised=True).images[0]
    assert np.array_equal(pixels("a.png"), np.asarray(again))
    assert not np.array_equal(pixels("a.png"), pixels("b.png"))
    assert read_parameters("a.png")["quantize_denoised"] is True


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim"])
def test_the_temperature_is_that_of_python(run, models, scheduler):
    noisy = {"eta": 1.0} if scheduler == "ddim" else {}
    flags = [word for name, value in noisy.items() for word in (f"--{name}", value)]
    options = ("--model", models["sample"], "--steps", 4, "--seed", 0, "--scheduler", scheduler, *flags)
    assert run("sample", *options, "--temperature", 0.25, "-o", "a.png")[0] == 0
    assert run("sample", *options, "-o", "b.png")[0] == 0
    pipe = DiffusionPipeline.from_pretrained(models["sample"])
    pipe.set_scheduler(scheduler)
    again = pipe(num_inference_steps=4, seed=[0], temperature=0.25, **noisy).images[0]
    assert np.array_equal(pixels("a.png"), np.asarray(again))
    assert not np.array_equal(pixels("a.png"), pixels("b.png"))
    assert read_parameters("a.png")["temperature"] == 0.25
