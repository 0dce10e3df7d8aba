"""What `from_pretrained`, `from_pipe` and their neighbours are given by users of diffusers."""

import numpy as np
import pytest
import tiny
import torch

from latentdiff import (
    AutoPipeline,
    ConfigError,
    DiffusionPipeline,
    EulerScheduler,
    ImageToImagePipeline,
    InpaintPipeline,
    InputError,
    SuperResolutionPipeline,
    TextToImagePipeline,
    UnconditionalPipeline,
)

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    ("option", "neighbour"),
    [("dtyp", "dtype"), ("torch_dtypes", "torch_dtype"), ("revison", "revision"), ("schedular", "scheduler")],
)
def test_a_misspelt_option_is_named_before_anything_is_loaded(option, neighbour):
    with pytest.raises(InputError, match=f"takes no '{option}'; did you mean .*'{neighbour}'"):
        DiffusionPipeline.from_pretrained("nobody/nothing", **{option: 1})


@pytest.mark.parametrize("name", ["float16", "fp16", "torch.float16", torch.float16])
@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
def test_data_types_by_name(tmp_path, name, option):
    pipe = DiffusionPipeline.from_pretrained(tiny.tiny_text_to_image(tmp_path), **{option: name})
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.float16


def test_data_types_of_components(tmp_path):
    folder = tiny.tiny_text_to_image(tmp_path)
    pipe = DiffusionPipeline.from_pretrained(folder, dtype={"unet": "bf16", "default": torch.float32})
    assert pipe.unet.dtype == torch.bfloat16 and pipe.vae.dtype == torch.float32


@pytest.mark.parametrize("value", ["half", "automatic", 16, "", "float8"])
def test_what_is_no_data_type(tmp_path, value):
    with pytest.raises(InputError, match="dtype is "):
        DiffusionPipeline.from_pretrained("nobody/nothing", dtype=value)
    with pytest.raises(InputError, match="two names of one option"):
        DiffusionPipeline.from_pretrained("nobody/nothing", dtype="fp16", torch_dtype="fp16")
    with pytest.raises(InputError, match="dtype is "):
        DiffusionPipeline.from_original(tmp_path / "no.ckpt", torch_dtype=value)


def test_a_class_that_does_not_fit_the_folder(tmp_path):
    text, plain = tiny.tiny_text_to_image(tmp_path), tiny.tiny_unconditional(tmp_path)
    with pytest.raises(ConfigError, match="gives its network no context, but this one takes one"):
        UnconditionalPipeline.from_pretrained(text)
    for wrong in (InpaintPipeline, SuperResolutionPipeline):
        with pytest.raises(ConfigError, match="channels, but this one takes 4, being of another task"):
            wrong.from_pretrained(plain)
    for right, folder in (
        (UnconditionalPipeline, plain),
        (TextToImagePipeline, text),
        (ImageToImagePipeline, text),
        (ImageToImagePipeline, plain),
        (DiffusionPipeline, text),
    ):
        assert isinstance(right.from_pretrained(folder), right)


def test_tasks_by_the_names_of_the_commands(tmp_path):
    pipe = tiny.text_to_image(tmp_path)
    for name in ("img2img", "image-to-image"):
        assert type(AutoPipeline.from_pipe(pipe, name)) is ImageToImagePipeline
        assert type(AutoPipeline.from_pretrained(tmp_path / "text", task=name)) is ImageToImagePipeline
    assert type(AutoPipeline.from_pipe(pipe, "generate")) is TextToImagePipeline
    with pytest.raises(ConfigError, match="unknown pipeline 'img2im'"):
        AutoPipeline.from_pipe(pipe, "img2im")


def test_from_pipe_without_a_task_keeps_the_pipelines_own(tmp_path):
    pipe = tiny.text_to_image(tmp_path)
    again = AutoPipeline.from_pipe(pipe)
    assert type(again) is TextToImagePipeline and again.unet is pipe.unet
    assert type(AutoPipeline.from_pipe(ImageToImagePipeline.from_pipe(pipe))) is ImageToImagePipeline


def test_from_pipe_of_stock_pipelines_and_what_is_none(tmp_path):
    from diffusers import DDPMPipeline, LDMPipeline

    plain = tiny.unconditional(tmp_path)
    stock = DDPMPipeline(plain.unet, plain.scheduler)
    with pytest.raises(ConfigError, match="DDPMPipeline is the pipeline of no task here; give one"):
        AutoPipeline.from_pipe(stock)
    assert LDMPipeline.__name__  # whose components have other names than here
    for wrong in (plain.unet, "folder", None):
        with pytest.raises(ConfigError, match="give a pipeline, or load a model with from_pretrained"):
            UnconditionalPipeline.from_pipe(wrong)


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
def test_from_pipe_casts(tmp_path, option):
    pipe = tiny.text_to_image(tmp_path)
    assert AutoPipeline.from_pipe(pipe, **{option: "bf16"}).unet.dtype == torch.bfloat16
    assert pipe.unet.dtype == torch.bfloat16  # the components are shared
    assert TextToImagePipeline.from_pipe(pipe).unet.dtype == torch.bfloat16


def test_from_single_file_points_to_from_original():
    for made in (DiffusionPipeline, TextToImagePipeline):
        with pytest.raises(ConfigError, match=rf"{made.__name__}.from_original\(checkpoint\)"):
            made.from_single_file("model.ckpt")


def test_images_of_a_pipeline_loaded_by_name_are_those_of_the_class(tmp_path):
    folder = tiny.tiny_text_to_image(tmp_path)
    images = []
    for dtype in ("float32", torch.float32, None):
        pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        images.append(pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images)
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"unet": None}, "unet is None, but a UnconditionalPipeline needs one"),
        ({"vae": "runs/vae"}, "vae is 'runs/vae', which is no component; give a loaded one, or leave it out"),
        ({"scheduler": "ddim"}, "scheduler is 'ddim', .* call set_scheduler afterwards"),
        ({"scheduler": EulerScheduler}, "scheduler is <class .*, which is no component"),
        ({"dtype": torch.int8}, "dtype is torch.int8; networks compute in floating-point numbers"),
        ({"dtype": {"unett": "fp16"}}, "dtype is given for 'unett'; did you mean 'unet'"),
        ({"safety_checker": object()}, "safety_checker is given, but the pipelines here have none"),
    ],
)
def test_what_is_given_in_place_of_a_component(tmp_path, given, line):
    with pytest.raises(InputError, match=line):
        DiffusionPipeline.from_pretrained(tiny.tiny_unconditional(tmp_path), **given)


def test_what_users_of_diffusers_leave_out_is_left_out(tmp_path):
    absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    model = tiny.tiny_unconditional(tmp_path)
    assert type(DiffusionPipeline.from_pretrained(model, **absent)) is UnconditionalPipeline
    scheduler = EulerScheduler()
    assert DiffusionPipeline.from_pretrained(model, scheduler=scheduler).scheduler is scheduler


def test_from_pipe_of_the_base_class_is_refused(tmp_path):
    pipe = tiny.unconditional(tmp_path)
    with pytest.raises(ConfigError, match=r"call from_pipe of that of a task, or AutoPipeline\.from_pipe"):
        DiffusionPipeline.from_pipe(pipe)
    assert UnconditionalPipeline.from_pipe(pipe).unet is pipe.unet
