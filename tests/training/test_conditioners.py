"""Every conditioning, from a folder of images to a pipeline: real runs at tiny size."""

import pytest
import torch
import toy
from safetensors.torch import load_file

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.data.folder import ImageFolder
from latentdiff.registry import CONDITIONERS, PIPELINES
from latentdiff.seeding import array_generator, generator
from latentdiff.training.diffusion import DiffusionTask
from latentdiff.training.second_stage import make_conditioner

CONDITIONED = [task for task in toy.TASKS if task != "unconditional"]
DROPPING = [task for task in toy.TASKS if CONDITIONERS.get(task).dropout is not None]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("first_stage"))


def weights_of(folder):
    files = sorted((folder / "pipeline").rglob("*.safetensors"))
    assert len(files) > 1
    return {f"{path.parent.name}.{name}": tensor for path in files for name, tensor in load_file(path).items()}


def conditioner_of(task, data, vae, **options):
    torch.manual_seed(0)
    recipe = toy.recipe(task, data, vae, "unused", **options)
    images = ImageFolder(recipe.train_data_dir, recipe.resolution)
    conditioner = make_conditioner(recipe, images)
    return conditioner, conditioner.rows(images), recipe


def batch_of(rows, indices, mirrored=False):
    """What the loader gives for some images, without latents."""
    parts = [rows(index, mirrored, array_generator(0, place)) for place, index in enumerate(indices)]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def test_all_are_here():
    assert set(toy.TASKS) == set(CONDITIONERS.names()) <= set(PIPELINES.names())


@pytest.mark.parametrize("task", toy.TASKS)
def test_a_folder_becomes_a_pipeline(task, data, vae, tmp_path):
    output = toy.train(task, data, vae, tmp_path, max_train_steps=2)
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe) is PIPELINES.get(task)
    images = toy.call(task, pipe, data, toy.lines(data)[:2], num_inference_steps=2, seed=0)
    assert images.shape == (2, 16, 16, 3)
    again = toy.train(task, data, vae, tmp_path / "again", pretrained_model_name_or_path=str(output / "pipeline"))
    before, after = weights_of(output), weights_of(again)
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet", *CONDITIONERS.get(task).trains}


@pytest.mark.parametrize("task", toy.TASKS)
def test_resuming_is_bit_for_bit(task, data, vae, tmp_path):
    whole = toy.train(task, data, vae, tmp_path / "whole", random_flip=True)
    toy.train(task, data, vae, tmp_path / "parts", random_flip=True, max_train_steps=2)
    parts = toy.train(task, data, vae, tmp_path / "parts", random_flip=True, resume_from_checkpoint="latest")
    first, second = weights_of(whole), weights_of(parts)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def network_input(unet, run):
    """The channels beside the latents and the cross-attention's keys that the UNet is called with."""
    seen = {}

    def hook(_, args, kwargs):
        seen["concat"] = args[0][:, 4:].detach()
        context = kwargs.get("encoder_hidden_states")
        seen["keys"] = () if context is None else tuple(key.detach() for key in context.keys)

    handle = unet.register_forward_pre_hook(hook, with_kwargs=True)
    run()
    handle.remove()
    return seen


def assert_same_input(first, second):
    assert first["concat"].shape == second["concat"].shape and len(first["keys"]) == len(second["keys"])
    assert first["concat"].numel() or first["keys"]
    for one, other in zip([first["concat"], *first["keys"]], [second["concat"], *second["keys"]], strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", CONDITIONED)
def test_training_shows_the_network_what_sampling_does(task, data, vae):
    conditioner, rows, recipe = conditioner_of(task, data, vae)
    pipe, chosen = conditioner.pipeline, [3, 17]
    pipe.set_progress_bar_config(disable=True)
    batch = {"moments": torch.zeros(2, 8, 8, 8), **batch_of(rows, chosen)}
    training = network_input(pipe.unet, lambda: undropped(conditioner, recipe)(batch, generator(0)))
    lines = [toy.lines(data)[index] for index in chosen]
    options = {"num_inference_steps": 1, "seed": 0} | ({"guidance_scale": 1} if task in DROPPING_PIPELINES else {})
    sampling = network_input(pipe.unet, lambda: toy.call(task, pipe, data, lines, batch=batch, **options))
    assert_same_input(training, sampling)
    other = {"moments": batch["moments"], **batch_of(rows, [5, 8])}
    other = network_input(pipe.unet, lambda: undropped(conditioner, recipe)(other, generator(0)))
    with pytest.raises(AssertionError):
        assert_same_input(training, other)


DROPPING_PIPELINES = ("text-to-image", "class-to-image", "layout-to-image")


def undropped(conditioner, recipe):
    task = DiffusionTask(conditioner, recipe)
    task.dropout = 0.0
    return task.eval()


def conditions(conditioner, batch, dropped):
    found = conditioner(batch, torch.tensor(dropped).bool(), generator(0))
    return found.context if found.context is not None else found.concat


@pytest.mark.parametrize("task", DROPPING)
def test_a_dropped_condition_is_the_null_condition(task, data, vae):
    conditioner, rows, recipe = conditioner_of(task, data, vae, condition_dropout=0.5)
    batch = batch_of(rows, [0, 9])
    kept, dropped, half = (conditions(conditioner, batch, d) for d in ([0, 0], [1, 1], [0, 1]))
    assert not torch.equal(kept[0], kept[1]) and torch.equal(dropped[0], dropped[1])
    assert torch.equal(half[0], kept[0]) and torch.equal(half[1], dropped[1])
    assert torch.allclose(dropped[:1], null_condition(task, conditioner.pipeline), rtol=0, atol=1e-6)
    assert DiffusionTask(conditioner, recipe).dropout == 0.5


def null_condition(task, pipe):
    """What guidance leads away from."""
    if task == "text-to-image":
        return pipe.encode_prompt("", may_be_empty=True)
    return pipe.encode_labels(pipe.class_embedder.config.null_class)


@pytest.mark.parametrize("task", CONDITIONED)
def test_what_makes_the_condition_is_trained(task, data, vae):
    conditioner, rows, recipe = conditioner_of(task, data, vae)
    task_module = DiffusionTask(conditioner, recipe)
    batch = {"moments": torch.zeros(4, 8, 8, 8), **batch_of(rows, range(4))}
    for network in (conditioner.pipeline.unet, *(getattr(conditioner.pipeline, name) for name in conditioner.trains)):
        toy.randomise(network)
    task_module(batch, generator(0))[0].backward()
    for name in ("unet", *conditioner.trains):
        assert any(p.grad is not None and p.grad.any() for p in getattr(conditioner.pipeline, name).parameters()), name
    assert all(p.grad is None for p in conditioner.pipeline.vae.parameters())


def test_classes_and_their_names_are_in_the_folder(data, vae):
    embedder = conditioner_of("class-to-image", data, vae)[0].pipeline.class_embedder.config
    assert list(embedder.class_names) == ["blue", "green", "red"] and (embedder.num_classes, embedder.null_class) == (
        4,
        3,
    )
    embedder = conditioner_of("class-to-image", data, vae, condition_dropout=0)[0].pipeline.class_embedder.config
    assert embedder.num_classes == 3 and embedder.null_class is None
    named = {"embed_dim": 16, "class_names": ["red", "pink", "blue", "green"]}
    _, rows, _ = conditioner_of("class-to-image", data, vae, class_embedder=named)
    assert batch_of(rows, [0, 4, 8])["labels"].tolist() == [2, 3, 0]


BAD = {
    "no captions": ("text-to-image", {"drop": ["text"]}, InputError, r"no metadata\.jsonl with 'text'"),
    "no vocabulary": ("text-to-image", {"vocabulary": None}, ConfigError, "vocabulary is missing"),
    "no classes": ("class-to-image", {"drop": ["label"]}, InputError, "has no classes; sort"),
    "unknown class": (
        "class-to-image",
        {"class_embedder": {"embed_dim": 16, "class_names": ["read", "green", "blue"]}},
        InputError,
        "unknown class 'red'; did you mean 'read'",
    ),
    "from the data": ("class-to-image", {"class_embedder": {"num_classes": 5}}, ConfigError, r"has \['num_classes'\]"),
    "unknown option": (
        "class-to-image",
        {"class_embedder": {"embed_dims": 5}},
        ConfigError,
        "class_embedder .*embed_dims",
    ),
    "of another task": (
        "class-to-image",
        {"text_encoder": {"hidden_size": 8}},
        ConfigError,
        "text_encoder is given, but conditioning 'class-to-image' does not use it; it uses class_embedder, cond",
    ),
    "no dropout": ("unconditional", {"condition_dropout": 0.1}, ConfigError, "condition_dropout is given, but"),
    "both dropouts": (
        "text-to-image",
        {"condition_dropout": 0.1, "caption_dropout": 0.1},
        ConfigError,
        "are both given",
    ),
    "dropout": ("class-to-image", {"condition_dropout": 1.5}, ConfigError, r"must be in \[0, 1\]"),
    "unknown task": ("class-to-imag", {}, ConfigError, "unknown conditioning 'class-to-imag'; did you mean 'class-to"),
    "wrong channels": (
        "unconditional",
        {"unet": {**toy.UNET, "in_channels": 3}},
        ConfigError,
        "in_channels 3.* need 4",
    ),
    "wrong context": (
        "class-to-image",
        {"unet": {**toy.UNET, "cross_attention_dim": 8}},
        ConfigError,
        "cross_attention_dim 8, .*'class-to-image' need 16",
    ),
    "resolution": ("unconditional", {"resolution": 18}, ConfigError, "resolution is 18; .* multiple of 4"),
    "first stage": ("unconditional", {"vae": "/nowhere"}, OSError, "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, data, vae, tmp_path):
    task, options, kind, message = BAD[name]
    options = dict(options)
    if dropped := options.pop("drop", None):
        data = toy.without(data, tmp_path / "data", dropped)
    with pytest.raises(kind, match=message) as caught:
        toy.train(task, data, options.pop("vae", vae), tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_pretrained_model_of_another_task_is_refused(data, vae, tmp_path):
    output = toy.train("unconditional", data, vae, tmp_path, max_train_steps=1)
    options = {"pretrained_model_name_or_path": str(output / "pipeline")}
    with pytest.raises(
        ConfigError, match="conditioning is 'class-to-image', the pretrained pipeline's 'unconditional'"
    ):
        toy.train("class-to-image", data, vae, tmp_path / "again", **options)
