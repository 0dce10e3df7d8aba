import pytest
import torch
from PIL import Image
from tiny import tiny_class_to_image

from latentdiff import AutoGuidance, Conditioning, DiffusionPipeline
from latentdiff.cli import replay
from latentdiff.io.generated import read_parameters

pytestmark = pytest.mark.thorough


@pytest.fixture
def load(capsys):
    """Loads a model, without a trace on stderr."""

    def call(folder):
        pipe = DiffusionPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        capsys.readouterr()
        return pipe

    return call


@pytest.fixture
def earlier(load, tmp_path):
    """Saves a model with other weights of some parts, and returns its folder."""

    def call(folder, *parts):
        pipe = load(folder)
        with torch.no_grad():
            for part in parts:
                for parameter in pipe.components[part].parameters():
                    parameter.mul_(1.2)
        pipe.save_pretrained(tmp_path / "weak")
        return str(tmp_path / "weak")

    return call


def test_it_is_that_of_python_and_recorded(run, load, earlier, unconditional_model, tmp_path):
    weak = earlier(unconditional_model, "unet")
    words = ["sample", "--model", unconditional_model, "--steps", 2, "--num-images", 2, "--batch-size", 2]
    for folder, scale in (("a", []), ("b", ["--autoguidance-scale", 1.5])):
        assert run(*words, "--autoguidance", weak, *scale, "-o", folder)[0] == 0
    pipe = load(unconditional_model)
    for folder, scale in (("a", 2.0), ("b", 1.5)):
        guide = AutoGuidance(load(weak), scale)
        images = pipe(batch_size=2, seed=[0, 1], num_inference_steps=2, guidance=[guide]).images
        for seed, image in enumerate(images):
            parameters = read_parameters(tmp_path / folder / f"{seed:06d}.png")
            assert parameters["autoguidance_scale"] == scale and parameters["autoguidance"] == weak
            with Image.open(tmp_path / folder / f"{seed:06d}.png") as made:
                assert made.tobytes() == image.tobytes()
    again = replay.command(parameters)
    assert f"--autoguidance {weak} --autoguidance-scale 1.5" in again


def test_a_class_model_has_classes_of_its_own(run, load, earlier, tmp_path):
    model = str(tiny_class_to_image(tmp_path / "made"))
    weak = earlier(model, "unet", "class_embedder")
    code, out, err = run(
        *("class", "cat", "dog", "--model", model, "--steps", 2, "--seed", 3),
        *("--guidance-scale", 1, "--autoguidance", weak, "-o", "out"),
    )
    assert (code, err, len(out)) == (0, [], 2)
    pipe, guide = load(model), load(weak)
    guidance = [AutoGuidance(guide, 2.0, conditioning=Conditioning(guide.encode_labels(["cat", "dog"])))]
    images = pipe(["cat", "dog"], seed=[3, 3], guidance_scale=1.0, num_inference_steps=2, guidance=guidance).images
    for line, image in zip(out, images, strict=True):
        with Image.open(tmp_path / line.split("\t")[0]) as made:
            assert made.tobytes() == image.tobytes()


def test_models_that_do_not_go_together_are_one_line(fails, earlier, unconditional_model):
    other = earlier(unconditional_model, "vae")
    words = ["sample", "--model", unconditional_model, "--steps", 2, "--num-images", 1]
    fails("another vae than the guided one", *words, "--autoguidance", other)
    fails("unknown model 'nothing'", *words, "--autoguidance", "nothing")
    fails("without --autoguidance MODEL", *words, "--autoguidance-scale", 2)
    fails("--autoguidance-scale", *words, "--autoguidance", "nothing", "--autoguidance-scale", "nan")
