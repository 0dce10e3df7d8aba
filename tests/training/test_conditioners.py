"""Every conditioning, from a folder of images to a pipeline: real runs at tiny size."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from latentdiff import ConfigError, DiffusionPipeline, InputError, VQModel
from latentdiff.data.images import ImageFolder
from latentdiff.registry import CONDITIONERS, PIPELINES
from latentdiff.seeding import SampleGenerators, array_generator
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.conditioners.options import condition_options
from latentdiff.training.diffusion.task import DiffusionTask

GUIDED = ("text-to-image", "class-to-image", "layout-to-image")
CONDITIONED = [task for task in toy.TASKS if task != "unconditional"]
DROPPING = [task for task in toy.TASKS if "dropout" in condition_options(task).model_fields]


def weights_of(folder):
    files = sorted((folder / "pipeline").rglob("*.safetensors"))
    assert len(files) > 1
    return {f"{path.parent.name}.{name}": tensor for path in files for name, tensor in load_file(path).items()}


def conditioner_of(task, data, vae, **options):
    torch.manual_seed(0)
    recipe = toy.recipe(task, data, vae, "unused", **options)
    images = ImageFolder(recipe.data.train_data_dir, recipe.data.resolution)
    conditioner = make_conditioner(recipe, images)
    return conditioner, conditioner.rows(images), recipe


MIRRORED = replace(toy.SQUARE, mirrored=True)


def batch_of(rows, indices, view=toy.SQUARE):
    """What the loader gives for some images, without latents."""
    parts = [rows(index, view, array_generator(0, place)) for place, index in enumerate(indices)]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def test_all_are_here():
    assert set(toy.TASKS) <= set(CONDITIONERS.names())
    assert set(PIPELINES.names()) - set(toy.TASKS) == {"image-to-image", "hybrid"}  # sampling alone, and all others


@pytest.mark.thorough
@pytest.mark.parametrize("task", toy.TASKS)
def test_a_folder_becomes_a_pipeline(task, data, vae, tmp_path, placement):
    options = {"mixed_precision": placement.mixed_precision}
    output = toy.train(task, data, vae, tmp_path, max_train_steps=2, **options)
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe) is PIPELINES.get(task)
    images = toy.call(task, pipe, data, toy.lines(data)[:2], num_inference_steps=2, seed=0)
    assert images.shape == (2, 16, 16, 3)
    options |= {"pretrained_model_name_or_path": str(output / "pipeline")}
    again = toy.train(task, data, vae, tmp_path / "again", **options)
    before, after = weights_of(output), weights_of(again)
    assert before.keys() == after.keys()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unet", *CONDITIONERS.get(task).trains}


@pytest.mark.thorough
@pytest.mark.parametrize("task", toy.TASKS)
def test_resuming_is_bit_for_bit(task, data, vae, tmp_path, placement):
    options = {"data.random_flip": True, "mixed_precision": placement.mixed_precision}
    whole = toy.train(task, data, vae, tmp_path / "whole", **options)
    toy.train(task, data, vae, tmp_path / "parts", **options, max_train_steps=2)
    parts = toy.train(task, data, vae, tmp_path / "parts", **options, resume_from_checkpoint="latest")
    first, second = weights_of(whole), weights_of(parts)
    assert first.keys() == second.keys()
    for name in first:
        placement.assert_same(first[name], second[name])


@pytest.mark.thorough
@pytest.mark.parametrize("task", ["layout-to-image", "inpaint"])
def test_worker_processes_change_nothing(task, data, vae, tmp_path):
    runs = [toy.train(task, data, vae, tmp_path / str(n), max_train_steps=2, **{"data.num_workers": n}) for n in (0, 2)]
    first, second = map(weights_of, runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


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
    training = network_input(pipe.unet, lambda: undropped(conditioner, recipe)(batch, SampleGenerators(0, range(2))))
    lines = [toy.lines(data)[index] for index in chosen]
    options = {"num_inference_steps": 1, "seed": 0} | ({"guidance_scale": 1} if task in GUIDED else {})
    sampling = network_input(pipe.unet, lambda: toy.call(task, pipe, data, lines, batch=batch, **options))
    assert_same_input(training, sampling)
    other = {"moments": batch["moments"], **batch_of(rows, [5, 8])}
    other = network_input(pipe.unet, lambda: undropped(conditioner, recipe)(other, SampleGenerators(0, range(2))))
    with pytest.raises(AssertionError):
        assert_same_input(training, other)


def undropped(conditioner, recipe):
    return DiffusionTask(conditioner, recipe).eval()


def conditions(conditioner, batch, dropped):
    found = conditioner(batch, torch.tensor(dropped).bool(), SampleGenerators(0, range(2)))
    return found.context if found.context is not None else found.concat


@pytest.mark.parametrize("task", DROPPING)
def test_a_dropped_condition_is_the_null_condition(task, data, vae):
    conditioner, rows, _ = conditioner_of(task, data, vae, **{"conditioning.dropout": 0.5})
    batch = batch_of(rows, [0, 9])
    kept, dropped, half = (conditions(conditioner, batch, d) for d in ([0, 0], [1, 1], [0, 1]))
    assert not torch.equal(kept[0], kept[1]) and torch.equal(dropped[0], dropped[1])
    assert torch.equal(half[0], kept[0]) and torch.equal(half[1], dropped[1])
    assert torch.allclose(dropped[:1], null_condition(task, conditioner.pipeline), rtol=0, atol=1e-6)
    assert conditioner.dropout == 0.5
    samples = SampleGenerators(0, range(200))
    assert 70 < conditioner.draw_dropped(samples).sum() < 130


def null_condition(task, pipe):
    """What guidance leads away from."""
    if task == "text-to-image":
        return pipe.encode_prompt("", may_be_empty=True)
    if task == "layout-to-image":
        return pipe.encode_layouts(pipe.tokenizer([]))
    if task == "semantic-to-image":
        return torch.zeros(1, 3, 8, 8)  # the encoder has no bias, so no class at any pixel is nothing
    if task == "super-resolution":
        return torch.zeros(1, 3, 8, 8)
    if task == "inpaint":
        return pipe.encode_masked(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
    return pipe.encode_labels(pipe.class_embedder.config.null_class)


@pytest.mark.parametrize("task", CONDITIONED)
def test_what_makes_the_condition_is_trained(task, data, vae):
    conditioner, rows, recipe = conditioner_of(task, data, vae)
    task_module = DiffusionTask(conditioner, recipe)
    batch = {"moments": torch.zeros(4, 8, 8, 8), **batch_of(rows, range(4))}
    for network in (conditioner.pipeline.unet, *(getattr(conditioner.pipeline, name) for name in conditioner.trains)):
        toy.randomise(network)
    task_module(batch, SampleGenerators(0, range(4)))[0].backward()
    for name in ("unet", *conditioner.trains):
        assert any(p.grad is not None and p.grad.any() for p in getattr(conditioner.pipeline, name).parameters()), name
    assert all(p.grad is None for p in conditioner.pipeline.vae.parameters())


def test_classes_and_their_names_are_in_the_folder(data, vae):
    embedder = conditioner_of("class-to-image", data, vae)[0].pipeline.class_embedder.config
    assert list(embedder.class_names) == ["blue", "green", "red"] and (embedder.num_classes, embedder.null_class) == (
        4,
        3,
    )
    embedder = conditioner_of("class-to-image", data, vae, **{"conditioning.dropout": 0})[
        0
    ].pipeline.class_embedder.config
    assert embedder.num_classes == 3 and embedder.null_class is None
    named = {"embed_dim": 16, "class_names": ["red", "pink", "blue", "green"]}
    _, rows, _ = conditioner_of("class-to-image", data, vae, **{"conditioning.class_embedder": named})
    assert batch_of(rows, [0, 4, 8])["labels"].tolist() == [2, 3, 0]


@pytest.mark.parametrize("task", ["layout-to-image", "semantic-to-image", "super-resolution", "inpaint"])
def test_a_mirrored_image_has_a_mirrored_condition(task, data, vae):
    """What is said of a square at the left, mirrored, is what is said of a square at the right."""
    _, rows, _ = conditioner_of(task, data, vae)
    for left, right in ((0, 1), (6, 7)):
        mirrored, other, unlike = (
            rows(i, view, array_generator(0)) for i, view in ((left, MIRRORED), (right, toy.SQUARE), (left, toy.SQUARE))
        )
        for name, tensor in mirrored.items():
            assert torch.allclose(tensor.float(), other[name].float(), rtol=0, atol=1 / 127)
            assert name == "holes" or not torch.allclose(unlike[name].float(), other[name].float(), rtol=0, atol=0.1)


def test_draws_depend_on_the_visit_alone(data, vae):
    for task, options in {"inpaint": {}, "super-resolution": {"conditioning.degradation": "bsr_light"}}.items():
        _, rows, _ = conditioner_of(task, data, vae, **options)
        first, again, other = (rows(0, toy.SQUARE, array_generator(0, visit)) for visit in (5, 5, 6))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)


def test_objects_come_in_any_order(data, vae, tmp_path):
    objects = [{"class": "red", "box": [0, 0, 4, 4]}, {"class": "blue", "box": [8, 8, 4, 4]}]
    data = toy.rewritten(data, tmp_path / "data", objects=objects)
    conditioner, rows, _ = conditioner_of("layout-to-image", data, vae)
    tokenizer = conditioner.pipeline.tokenizer
    orders = {str([o["class"] for o in tokenizer.decode(batch_of(rows, [0] * 8)["layout_ids"])[i]]) for i in range(8)}
    assert orders == {"['red', 'blue']", "['blue', 'red']"}
    kept = tokenizer.decode(batch_of(rows, [0])["layout_ids"])[0]
    assert {o["class"]: round(o["box"][0], 1) for o in kept} == {"red": 0.0, "blue": 0.6}  # of 7 cells: 8 / 16 is 4 / 7


def test_masks_are_drawn_by_their_weights(data, vae):
    _, rows, _ = conditioner_of("inpaint", data, vae, **{"conditioning.masks": {"thin": 1e-9, "box": 1}})
    for visit in range(20):
        holes = rows(0, toy.SQUARE, array_generator(0, visit))["holes"][0].bool()
        assert 0 < holes.float().mean() <= 0.5


@pytest.mark.thorough
def test_a_vq_first_stage(data, tmp_path):
    """Latents are learned before quantisation, scaled to unit variance."""
    torch.manual_seed(0)
    options = {name: value for name, value in toy.VAE.items() if name != "sample_size"}
    VQModel(**options, num_vq_embeddings=32).save_pretrained(tmp_path / "vq")
    for task in ("class-to-image", "inpaint"):
        output = toy.train(task, data, tmp_path / "vq", tmp_path / task, max_train_steps=2)
        moments = np.load(output / "latents" / "moments.npy").astype(np.float64)
        pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
        assert moments.shape == (24, 4, 8, 8) and isinstance(pipe.vae, VQModel)
        assert abs(moments.std() * pipe.vae.config.scaling_factor - 1) < 1e-6
        pixels = torch.stack(list(ImageFolder(data, 16)))
        assert np.abs(pipe.vae.encode(pixels).latents.detach().numpy() - moments).max() < 1e-2
        images = toy.call(task, pipe, data, toy.lines(data)[:2], num_inference_steps=2, seed=0)
        assert images.shape == (2, 16, 16, 3)


def test_maps_and_their_colours_are_in_the_folder(data, vae):
    encoder = conditioner_of("semantic-to-image", data, vae)[0].pipeline.segmentation_encoder.config
    assert list(encoder.class_names) == toy.CLASSES and (encoder.in_channels, encoder.num_stages) == (4, 1)
    assert [tuple(colour) for colour in encoder.palette] == toy.PALETTE
    encoder = conditioner_of("semantic-to-image", data, vae, **{"conditioning.segmentation_encoder": {}})[
        0
    ].pipeline.segmentation_encoder
    assert encoder.config.in_channels == 4 and encoder.config.class_names is None


def test_layout_classes_are_in_the_folder(data, vae):
    pipe = conditioner_of("layout-to-image", data, vae)[0].pipeline
    assert pipe.tokenizer.class_names == ["blue", "green", "red"]
    assert pipe.layout_encoder.config.vocab_size == 64
    assert pipe.layout_encoder.config.max_position_embeddings == pipe.tokenizer.length == 8


BAD = {
    "no captions": ("text-to-image", {"drop": ["text"]}, InputError, "has no captions"),
    "default vocabulary": (
        "text-to-image",
        {"conditioning.vocabulary": None},
        ConfigError,
        r"vocab_size 20, but .*vocab\.txt has 30522 tokens",
    ),
    "no classes": ("class-to-image", {"drop": ["label"]}, InputError, "has no classes; sort"),
    "unknown class": (
        "class-to-image",
        {"conditioning.class_embedder": {"embed_dim": 16, "class_names": ["read", "green", "blue"]}},
        InputError,
        "unknown class 'red'; did you mean 'read'",
    ),
    "from the data": (
        "class-to-image",
        {"conditioning.class_embedder": {"num_classes": 5}},
        ConfigError,
        r"has \['num_classes'\]",
    ),
    "unknown option": (
        "class-to-image",
        {"conditioning.class_embedder": {"embed_dims": 5}},
        ConfigError,
        "class_embedder .*embed_dims",
    ),
    "of another task": (
        "class-to-image",
        {"conditioning.text_encoder": {"hidden_size": 8}},
        ConfigError,
        "conditioning.text_encoder is given, but type is 'class-to-image', which takes class_embedder, dropout; it is",
    ),
    "no dropout": (
        "unconditional",
        {"conditioning.dropout": 0.1},
        ConfigError,
        "dropout is given, .* which takes none",
    ),
    "dropout": ("class-to-image", {"conditioning.dropout": 1.5}, ConfigError, "dropout is 1.5; it must be from 0 to 1"),
    "no objects": ("layout-to-image", {"drop": ["objects"]}, InputError, "has no objects"),
    "too many objects": (
        "layout-to-image",
        {"rewrite": {"objects": [{"class": "red", "box": [0, 0, 8, 8]}] * 3}},
        InputError,
        "0blue0.png: layout 0 has 3 objects, the model takes 2; leave 1 out",
    ),
    "box outside": (
        "layout-to-image",
        {"data.box_units": "relative"},
        InputError,
        "box of object 0 of 0blue0.png is .* reaches out of the image",
    ),
    "relative boxes": (
        "layout-to-image",
        {"rewrite": {"objects": [{"class": "red", "box": [0.1, 0.1, 0.5, 0.5]}]}},
        InputError,
        "no box reaches beyond 1, so they seem to be relative; give box_units relative, or pixels",
    ),
    "inverted box": (
        "layout-to-image",
        {"rewrite": {"objects": [{"class": "red", "box": [8, 8, 4, 4]}]}, "data.box_format": "xyxy"},
        InputError,
        "empty or inverted",
    ),
    "object without a box": (
        "layout-to-image",
        {"rewrite": {"objects": [{"class": 1}]}},
        InputError,
        "0blue0.png: obj",
    ),
    "object without a class": (
        "layout-to-image",
        {"rewrite": {"objects": [{"box": [0, 0, 8, 8]}]}},
        InputError,
        r"0\.png: object 0 is of the class None; give a name",
    ),
    "no object at all": ("layout-to-image", {"rewrite": {"objects": []}}, InputError, "no image has objects"),
    "unknown object": (
        "layout-to-image",
        {"conditioning.layout_tokenizer": {"class_names": ["red", "green", "blues"], "num_tokens": 64}},
        InputError,
        "0blue0.png: unknown class 'blue'; did you mean 'blues'",
    ),
    "vocabulary of layouts": (
        "layout-to-image",
        {"conditioning.layout_encoder": {**toy.ENCODER, "vocab_size": 3}},
        ConfigError,
        r"layout_encoder has \['vocab_size'\]",
    ),
    "no maps": ("semantic-to-image", {"drop": ["label_map"]}, InputError, "has no label maps"),
    "map of another size": (
        "semantic-to-image",
        {"rewrite": {"label_map": "small.png"}},
        InputError,
        r"label map .*small.png is 8x8 pixels, its image 16x16",
    ),
    "class out of range": (
        "semantic-to-image",
        {"conditioning.segmentation_encoder": {"in_channels": 2}},
        InputError,
        r"label map .*0green0.png has the value 2 .* allowed: 0 to 1, and 255",
    ),
    "other colours": (
        "semantic-to-image",
        {"conditioning.segmentation_encoder": {"palette": [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]]}},
        InputError,
        "has class 0 in the colour .25, 25, 50., the palette says .0, 0, 0.",
    ),
    "missing map": (
        "semantic-to-image",
        {"rewrite": {"label_map": "no.png"}},
        InputError,
        "names no.png, which does not",
    ),
    "conditioning.degradation": (
        "super-resolution",
        {"conditioning.degradation": "bicubik"},
        ConfigError,
        "unknown degradation 'bicubik'; did you",
    ),
    "degradation of holes": (
        "inpaint",
        {"conditioning.degradation": "bicubic"},
        ConfigError,
        "type is 'inpaint', which takes text, dropout, masks; it is",
    ),
    "dropout of holes": ("inpaint", {"conditioning.dropout": 1.5}, ConfigError, "dropout is 1.5; it must be from 0 to"),
    "unknown mask": ("inpaint", {"conditioning.masks": {"thik": 1}}, ConfigError, "unknown mask generator 'thik'"),
    "no mask": ("inpaint", {"conditioning.masks": {}}, ConfigError, "masks is empty"),
    "mask weight": ("inpaint", {"conditioning.masks": {"thin": 0}}, ConfigError, "masks has 0 as the weight of 'thin'"),
    "mask of a map": ("inpaint", {"conditioning.masks": {"segment": 1}}, InputError, "segment mask needs"),
    "unknown task": ("class-to-imag", {}, ConfigError, "conditioning.type is 'class-to-imag'; did you mean 'class-to"),
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
    "resolution": ("unconditional", {"data.resolution": 18}, ConfigError, "resolution is 18; .* multiple of 4"),
    "first stage": ("unconditional", {"vae": "/nowhere"}, OSError, "nowhere"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, data, vae, tmp_path):
    task, options, kind, message = BAD[name]
    options = dict(options)
    dropped, changed = options.pop("drop", ()), options.pop("rewrite", {})
    data = toy.rewritten(data, tmp_path / "data", dropped, **changed)
    with pytest.raises(kind, match=message) as caught:
        toy.train(task, data, options.pop("vae", vae), tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_first_stage_of_other_channels_is_named(data, tmp_path):
    AutoencoderKL(**{**toy.VAE, "in_channels": 6, "out_channels": 6}).save_pretrained(tmp_path / "vae")
    with pytest.raises(ConfigError, match="has 3 channels, but the first stage takes 6; give one of such images"):
        toy.train("unconditional", data, tmp_path / "vae", tmp_path / "out")


def test_a_package_may_bring_a_conditioner(data, vae, tmp_path, monkeypatch):
    """Found by its name in the recipe, through the package's entry point."""
    (tmp_path / "offered_conditioner.py").write_text(
        "from latentdiff.registry import CONDITIONERS\n"
        "from latentdiff.training.diffusion.conditioners.unconditional import NoCondition\n"
        "CONDITIONERS.register('offered')(type('Offered', (NoCondition,), {'task': 'unconditional'}))\n"
    )
    (tmp_path / "offered-1.dist-info").mkdir()
    (tmp_path / "offered-1.dist-info" / "METADATA").write_text("Name: offered\nVersion: 1\n")
    (tmp_path / "offered-1.dist-info" / "entry_points.txt").write_text(
        "[latentdiff.plugins]\no = offered_conditioner\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        output = toy.train("offered", data, vae, tmp_path / "run", max_train_steps=1)
        assert type(DiffusionPipeline.from_pretrained(output / "pipeline")) is PIPELINES.get("unconditional")
    finally:
        CONDITIONERS._entries.pop("offered", None)
