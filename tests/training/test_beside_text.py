"""Training on channels and captions at once: text-guided inpainting and super-resolution, from a text model too."""

import pytest
import torch
import toy
from safetensors.torch import load_file
from tiny import text_to_image, tiny_text_inpaint, unconditional

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.conversion import load_original
from latentdiff.conversion.convert import to_original
from latentdiff.data.images import ImageFolder
from latentdiff.errors import LatentDiffWarning
from latentdiff.seeding import SampleGenerators, array_generator
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.task import DiffusionTask

TASKS = ("inpaint", "super-resolution")
EXTRA = {"inpaint": 5, "super-resolution": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("model") / "vae")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text model, none of whose weights are zero."""
    folder = tmp_path_factory.mktemp("model")
    text_to_image(folder)
    return folder / "text"


def with_text(data, task, **more):
    """What a recipe says of the condition."""
    options = {**toy.TASKS["text-to-image"], "vocabulary": str(data / "vocab.txt"), **more}
    return {"conditioning": {"type": task, **toy.TASKS[task], "text": options}}


def from_text(folder, **more):
    return {"pretrained_model_name_or_path": str(folder), "unet": {}, **more}


def task_of(task, data, vae, **options):
    torch.manual_seed(0)
    recipe = toy.recipe(task, data, vae, "unused", **options)
    images = ImageFolder(data, toy.SIDE)
    conditioner = make_conditioner(recipe, images)
    rows = conditioner.rows(images)
    parts = [rows(index, toy.SQUARE, array_generator(0, index)) for index in range(3)]
    return DiffusionTask(conditioner, recipe), {key: torch.stack([part[key] for part in parts]) for key in parts[0]}


def call(task, pipe, data, batch=None, **options):
    rows = toy.lines(data)[: 3 if batch else 2]
    return toy.call(task, pipe, data, rows, batch=batch, prompt=[row["text"] for row in rows], **options)


@pytest.mark.thorough
@pytest.mark.parametrize("task", TASKS)
def test_a_folder_with_captions_becomes_a_pipeline(task, data, vae, tmp_path):
    output = toy.train(task, data, vae, tmp_path, max_train_steps=2, **with_text(data, task))
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.text_encoder is not None and pipe.tokenizer is not None
    assert pipe.unet.config.in_channels == 4 + EXTRA[task] and pipe.unet.config.cross_attention_dim == 16
    assert call(task, pipe, data, num_inference_steps=2, seed=0).shape == (2, 16, 16, 3)
    with pytest.raises(InputError, match="prompt is missing"):
        toy.call(task, pipe, data, toy.lines(data)[:1])
    # Going on from it needs no word of the captions, which the model has.
    again = toy.train(
        task, data, None, tmp_path / "again", **from_text(output / "pipeline"), conditioning={"type": task}
    )
    before, after = (
        load_file(folder / "pipeline" / "text_encoder" / "diffusion_pytorch_model.safetensors")
        for folder in (output, again)
    )
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("task", TASKS)
def test_training_shows_the_network_what_sampling_does(task, data, vae):
    trained, batch = task_of(task, data, vae, **with_text(data, task, dropout=0.0))
    pipe, seen = trained.pipeline, []
    pipe.set_progress_bar_config(disable=True)

    def hook(_, args, kwargs):
        seen.append((args[0][:, 4:].detach(), [key.detach() for key in kwargs["encoder_hidden_states"].keys]))

    handle = pipe.unet.register_forward_pre_hook(hook, with_kwargs=True)
    trained({"moments": torch.zeros(3, 8, 8, 8), **batch}, SampleGenerators(0, range(3)))
    trained.eval()
    call(task, pipe, data, batch=batch, num_inference_steps=1, seed=0, guidance_scale=1)
    handle.remove()
    (channels, keys), (others, other_keys) = seen
    assert channels.shape[1] == EXTRA[task] and len(keys) == len(other_keys) > 0
    for one, other in zip([channels, *keys], [others, *other_keys], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_captions_alone_are_dropped(data, vae):
    trained, batch = task_of("inpaint", data, vae, **with_text(data, "inpaint"))
    conditioner, draws = trained.conditioner, SampleGenerators(0, range(3))
    none, all_of_them = torch.zeros(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)
    kept, dropped = (conditioner(batch, which, draws) for which in (none, all_of_them))
    assert torch.equal(kept.concat, dropped.concat) and not torch.equal(kept.context, dropped.context)
    empty = conditioner.pipeline.encode_prompt("", may_be_empty=True)
    torch.testing.assert_close(dropped.context, empty.expand(3, -1, -1))
    assert conditioner.dropout == 0.1 and conditioner.knows_null and conditioner.trains == ("text_encoder",)


@pytest.mark.parametrize("task", TASKS)
def test_the_first_loss_is_the_text_models(data, text, task):
    """Whatever the new channels hold; and the first step's gradient reaches their weights."""
    moments = torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = {}
    for name in ("text-to-image", task):
        options = from_text(
            text, conditioning={"type": name, **({"text": {"dropout": 0}} if name == task else {"dropout": 0})}
        )
        trained, batch = task_of(name, data, None, **options)
        losses[name] = trained({"moments": moments, **batch}, SampleGenerators(0, [0, 1, 2]))[0]
    torch.testing.assert_close(losses[task], losses["text-to-image"], rtol=1e-5, atol=0)
    losses[task].backward()
    gradient = trained.unet.conv_in.weight.grad[:, 4:]
    assert gradient.flatten(2).any(2).all() and not trained.unet.conv_in.weight[:, 4:].any()


@pytest.mark.thorough
@pytest.mark.parametrize("task", TASKS)
def test_a_text_model_becomes_one_of_both(data, text, tmp_path, task):
    """Its captions are used without a word in the recipe; validation draws prompts beside the channels."""
    options = from_text(text, conditioning={"type": task}, max_train_steps=2)
    validation = {"validation": {"steps": 1, "prompts": ["a red apple"], "inference_steps": 1}}
    output = toy.train(task, data, None, tmp_path, **options, **validation)
    assert (output / "validation" / "samples-1.png").exists()
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert call(task, pipe, data, num_inference_steps=1, seed=0).shape == (2, 16, 16, 3)
    assert pipe.unet.conv_in.weight[:, 4:].any()


@pytest.mark.thorough
def test_a_text_encoder_that_stays_as_it_is(data, text, tmp_path):
    options = from_text(text, conditioning={"type": "inpaint", "text": {"train_text_encoder": False}})
    validation = {"validation": {"steps": 2, "samples": 2, "inference_steps": 1}}
    output = toy.train("inpaint", data, None, tmp_path, **options, **validation)
    before, after = (
        load_file(folder / "text_encoder" / "diffusion_pytorch_model.safetensors")
        for folder in (text, output / "pipeline")
    )
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert list((output / "captions").iterdir())


@pytest.mark.thorough
def test_an_adapter_of_a_model_of_both(data, tmp_path):
    pytest.importorskip("peft")
    start = tiny_text_inpaint(tmp_path)
    options = from_text(start, conditioning={"type": "inpaint"}, lora={"rank": 2})
    output = toy.train("inpaint", data, None, tmp_path / "out", **options)
    pipe = DiffusionPipeline.from_pretrained(start)
    pipe.set_progress_bar_config(disable=True)
    plain = call("inpaint", pipe, data, num_inference_steps=1, seed=0)
    pipe.load_lora_weights(output / "lora")
    assert (call("inpaint", pipe, data, num_inference_steps=1, seed=0) != plain).any()


@pytest.mark.thorough
def test_what_does_not_go_together(data, vae, text, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    unconditional(plain)
    whole = tiny_text_inpaint(tmp_path)
    cases = [
        (
            "inpaint",
            from_text(plain / "unconditional", **with_text(data, "inpaint")),
            "drop conditioning, or start super-",
        ),
        ("semantic-to-image", from_text(text), "drop conditioning, or start super-resolution"),
        ("inpaint", from_text(text, lora={"rank": 2}), "lora trains no new channels"),
        ("super-resolution", from_text(whole), "drop conditioning, or start super-resolution"),
        (
            "inpaint",
            with_text(data, "inpaint", train_text_encoder=False),
            "train_text_encoder is false, but the text encoder would be a new one",
        ),
    ]
    for task, options, message in cases:
        with pytest.raises(ConfigError, match=message):
            toy.train(task, data, vae, tmp_path / "out", **options)
    validation = {"validation": {"steps": 1, "prompts": ["a dog"]}}
    with pytest.raises(ConfigError, match=r"validation.prompts is given, but the model takes no captions"):
        toy.train("inpaint", data, vae, tmp_path / "out", **validation)
    bare = toy.rewritten(data, tmp_path / "bare", dropped=("text",))
    with pytest.raises(InputError, match="has no captions"):
        toy.train("inpaint", bare, None, tmp_path / "out", **from_text(text, conditioning={"type": "inpaint"}))
    with pytest.warns(LatentDiffWarning, match=r"so conditioning.text.text_encoder, conditioning.text.vocabulary"):
        task_of("inpaint", data, None, **from_text(text, **with_text(data, "inpaint"), noise_schedule={}))


@pytest.mark.parametrize(
    ("task", "class_name"),
    [("inpaint", "LatentInpaintDiffusion"), ("super-resolution", "LatentUpscaleFinetuneDiffusion")],
)
def test_what_is_trained_goes_to_the_original_and_back(data, vae, tmp_path, task, class_name):
    """Networks of 32 groups and 8 heads of 64, as the original makes them."""
    text = {"vocab_size": 24, "max_position_embeddings": 8, "hidden_size": 16, "num_hidden_layers": 1}
    unet = {**toy.UNET, "block_out_channels": [32, 64], "norm_num_groups": 32}
    conditioning = {"type": task, "text": {"text_encoder": text, "vocabulary": str(data / "vocab.txt")}}
    trained, _ = task_of(task, data, str(vae), unet=unet, conditioning=conditioning)
    components = dict(trained.pipeline.components)
    components["vae"] = type(components["vae"])(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16,
    )
    config, state = to_original(components)
    assert config["model"]["target"].endswith(f".{class_name}")
    assert config["model"]["params"]["conditioning_key"] == "hybrid"
    loaded = load_original(state, config)
    assert loaded.task == task
    for name in ("unet", "vae", "text_encoder"):
        expected = components[name].state_dict()
        found = loaded.components[name].state_dict()
        assert expected.keys() == found.keys() and all(torch.equal(found[key], expected[key]) for key in found)
