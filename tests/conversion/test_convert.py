"""Conversion on disk: folders that load, in latentdiff and in plain diffusers, and refusals that leave nothing."""

from contextlib import contextmanager

import diffusers
import pytest
import torch
import yaml
from golden_weights import GOLDEN, files
from safetensors.torch import load_file

from latentdiff import DiffusionPipeline, TextToImagePipeline
from latentdiff.cli.main import main
from latentdiff.conversion import load_original
from latentdiff.conversion.convert import convert_original, save_original
from latentdiff.conversion.to_diffusers import save_diffusers
from latentdiff.errors import CheckpointError, ConfigError, InputError
from latentdiff.models.tokenizer import BERT_VOCABULARY, load_tokenizer

EXACT = {"rtol": 0.0, "atol": 1e-5}


def test_folder_of_a_pipeline_computes_the_same(tmp_path):
    checkpoint, config = files("ldm_uncond")
    convert_original(checkpoint, tmp_path / "out", config)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "out")
    loaded = load_original(checkpoint, config)
    noise = torch.randn(1, *load_file(GOLDEN / "ldm_uncond" / "io.safetensors")["x_T"].shape[1:])
    found = pipe(latents=noise, num_inference_steps=3, output_type="pt").images
    expected = type(pipe)(**loaded.components)(latents=noise, num_inference_steps=3, output_type="pt").images
    torch.testing.assert_close(found, expected, **EXACT)


def test_folder_of_a_first_stage_is_a_component(tmp_path):
    checkpoint, config = files("fs_kl_f16")
    convert_original(checkpoint, tmp_path / "vae", config)
    vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae")
    stored = load_original(checkpoint, config).components["vae"].state_dict()
    assert all(torch.equal(tensor.float(), stored[key]) for key, tensor in vae.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, None])
def test_precision(tmp_path, dtype):
    checkpoint, config = files("ldm_cin")
    convert_original(checkpoint, tmp_path / "out", config, dtype=dtype)
    weights = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {dtype or torch.float16}  # the case is stored in float16


def test_to_original_and_back(tmp_path):
    checkpoint, config = files("ldm_layout2img")
    components = load_original(checkpoint, config, dtype=None).components
    save_original(components, tmp_path / "original")
    again = load_original(tmp_path / "original" / "model.ckpt", tmp_path / "original" / "config.yaml", dtype=None)
    for name in ("vae", "unet", "layout_encoder"):
        ours, theirs = components[name].state_dict(), again.components[name].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@torch.no_grad()
def test_diffusers_text_to_image_folder(tmp_path):
    loaded = load_original(*files("ldm_txt2img"))
    save_diffusers(loaded.task, loaded.components, tmp_path / "out")
    io = load_file(GOLDEN / "ldm_txt2img" / "io.safetensors")
    unet = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet")
    torch.testing.assert_close(unet(io["unet.x"], io["unet.t"], io["cond"]).sample, io["unet.eps"], **EXACT)
    vae = diffusers.AutoencoderKL.from_pretrained(tmp_path / "out" / "vqvae")
    torch.testing.assert_close(vae.decode(io["z"] / vae.config.scaling_factor).sample, io["recon"], **EXACT)
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert (scheduler.config.steps_offset, scheduler.config.clip_sample) == (1, False)


@torch.no_grad()
def test_diffusers_unconditional_pipeline_runs(tmp_path):
    loaded = load_original(*files("ldm_uncond"))
    save_diffusers(loaded.task, loaded.components, tmp_path / "out")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    io = load_file(GOLDEN / "ldm_uncond" / "io.safetensors")
    torch.testing.assert_close(pipe.unet(io["unet.x"], io["unet.t"]).sample, io["unet.eps_ema"], **EXACT)
    assert len(pipe(num_inference_steps=2).images) == 1


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("ldm_churches", "heads of one width|takes a VQModel"),
        ("ldm_cin", "no pipeline"),
        ("ldm_inpainting", "no pipe|heads"),
    ],
)
def test_diffusers_refusals(tmp_path, case, reason):
    loaded = load_original(*files(case))
    with pytest.raises(ConfigError, match=reason):
        save_diffusers(loaded.task, loaded.components, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_existing_output_is_kept(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="exists"):
        convert_original(*files("fs_kl_f16")[:1], out, files("fs_kl_f16")[1])
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_other_betas_are_noticed(tmp_path):
    config = yaml.safe_load(files("ldm_cin")[1].read_text())
    config["model"]["params"]["linear_end"] = 0.012
    with pytest.raises(
        CheckpointError, match=r"betas are 0.0015 to 0.0195 over \d+ steps, the config's 0.0015 to 0.012 over"
    ):
        load_original(files("ldm_cin")[0], config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda params: params["unet_config"].update(target="evil.module.Unet"), "only UNetModel"),
        (lambda params: params["unet_config"]["params"].update(num_hedas=3), "did you mean 'num_heads'"),
        (lambda params: params["unet_config"]["params"].update(dims=3), "only 2 can be converted"),
        (lambda params: params["first_stage_config"].update(target="ldm.models.autoencoder.VQGAN"), "these can be"),
        (lambda params: params.update(beta_schedule="linaer"), "did you mean 'linear'"),
        (lambda params: params.pop("unet_config"), "lacks 'unet_config'"),
        (lambda params: params.update(cond_stage_config={"target": "os.system"}), "cond_stage_config has the class"),
    ],
)
def test_configs_that_cannot_be(change, message):
    config = yaml.safe_load(files("ldm_cin")[1].read_text())
    change(config["model"]["params"])
    with pytest.raises(ConfigError, match=message) as caught:
        load_original(files("ldm_cin")[0], config)
    assert "\n" not in str(caught.value)


def test_command_line(tmp_path, capsys):
    checkpoint, config = map(str, files("ldm_uncond"))
    assert main(["convert", checkpoint, str(tmp_path / "out"), "--config", config]) == 0
    assert "averaged weights" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "out"), str(tmp_path / "back"), "--to", "original"]) == 0
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["config.yaml", "model.ckpt"]
    assert main(["convert", checkpoint, str(tmp_path / "out"), "--config", config]) == 2
    assert "exists" in capsys.readouterr().err


def test_pipeline_of_a_checkpoint():
    pipe = DiffusionPipeline.from_original(*files("ldm_uncond"))
    assert type(pipe).__name__ == "UnconditionalPipeline"
    assert pipe(num_inference_steps=2, output_type="latent").images.isfinite().all()
    with pytest.raises(ConfigError, match="TextToImagePipeline takes text-to-image"):
        TextToImagePipeline.from_original(*files("ldm_uncond"))
    with pytest.raises(ConfigError, match="a first stage alone"):
        DiffusionPipeline.from_original(*files("fs_kl_f16"))
    with pytest.raises(ConfigError, match="no tokenizer"):
        DiffusionPipeline.from_original(*files("ldm_txt2img"))


def test_tokenizer_of_the_text_models_is_in_the_package():
    """The known ids of a prompt in BERT's vocabulary."""
    tokenizer = load_tokenizer(BERT_VOCABULARY, 77)
    ids = tokenizer("A virus monster", padding="max_length", max_length=77)["input_ids"]
    assert ids[:6] == [101, 1037, 7865, 6071, 102, 0]
    assert len(ids) == 77


@contextmanager
def file_size_limit(size):
    """Let no file grow beyond `size` bytes; Python ignores the signal that this process gets then."""
    resource = pytest.importorskip("resource", reason="limits are set by POSIX's calls")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("form", ["latentdiff", "diffusers", "original"])
def test_no_room_leaves_nothing(tmp_path, capsys, kind, form):
    """A limit on the size of files stands for a full disk: a part of the output has been written when it strikes."""
    checkpoint, config = map(str, files("ldm_uncond"))
    command = ["convert", checkpoint, str(tmp_path / "out" / "it"), "--to", form, "--config", config]
    if kind == "folder":
        assert main(["convert", checkpoint, str(tmp_path / "source"), "--config", config, "--quiet"]) == 0
        command = ["convert", str(tmp_path / "source"), str(tmp_path / "out" / "it"), "--to", form]
    capsys.readouterr()
    with file_size_limit(200_000):
        assert main(command) == 2
    error = capsys.readouterr().err
    assert "cannot write" in error and "too large" in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_folders_of_first_stages(tmp_path, capsys):
    """A component's folder is a source like a pipeline's: in another precision, for diffusers, and back."""
    checkpoint, config = map(str, files("fs_vq_f4"))
    assert main(["convert", checkpoint, str(tmp_path / "vae"), "--config", config]) == 0
    assert main(["convert", str(tmp_path / "vae"), str(tmp_path / "half"), "--dtype", "bfloat16"]) == 0
    weights = load_file(tmp_path / "half" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert main(["convert", str(tmp_path / "vae"), str(tmp_path / "stock"), "--to", "diffusers"]) == 0
    diffusers.VQModel.from_pretrained(tmp_path / "stock")
    assert main(["convert", str(tmp_path / "vae"), str(tmp_path / "back"), "--to", "original"]) == 0
    capsys.readouterr()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100)
    for options, message in (
        ([], "is text, not a checkpoint"),
        (["--no-ema"], "--no-ema is given"),
        (["--config", "x"], "--config is"),
    ):
        assert main(["convert", str(tmp_path / "vae"), str(tmp_path / "no"), *options]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    (tmp_path / "vae" / "config.json").write_text('{"_class_name": "CLIPTextModel"}')
    assert main(["convert", str(tmp_path / "vae"), str(tmp_path / "no")]) == 2
    assert "one of AutoencoderKL, VQModel" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
