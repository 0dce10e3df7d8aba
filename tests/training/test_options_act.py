"""Every option of the diffusion recipe changes what it says: none is silently ignored."""

import shutil
from contextlib import contextmanager

import pytest
import torch
import toy
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_hook

from latentdiff import ConfigError
from latentdiff.config import load_recipe
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = pytest.mark.thorough


def trained(data, vae, output, **options):
    toy.train("unconditional", data, vae, output, **{"max_train_steps": 2, "ema.decay": 0, **options})
    return load_file(output / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def plain(data, vae, tmp_path_factory):
    return trained(data, vae, tmp_path_factory.mktemp("plain"))


@contextmanager
def counted():
    """The modules that are called inside the block."""
    calls = []
    handle = register_module_forward_hook(lambda module, *_: calls.append(module))
    try:
        yield calls
    finally:
        handle.remove()


CHANGING = {
    "loss.type": {"loss.type": "l1"},
    "huber": {"loss.type": "huber"},
    "loss.elbo_weight": {"loss.elbo_weight": 1.0},
    "loss.learn_logvar": {"loss.learn_logvar": True, "loss.logvar_init": 1.0},
    "loss.noise_offset": {"loss.noise_offset": 0.5},
    "loss.snr_gamma": {"loss.snr_gamma": 1.0},
    "optimizer.name": {"optimizer.name": "SGD"},
    "optimizer.options": {"optimizer.options": {"amsgrad": True, "eps": 0.1}},
    "optimizer.scale_lr": {"optimizer.scale_lr": True},
    "optimizer.lr_scheduler_options": {
        "optimizer.lr_scheduler": "warmup_linear",
        "optimizer.lr_scheduler_options": {"f_min": 0.1},
    },
}


@pytest.mark.parametrize("name", CHANGING)
def test_it_changes_the_weights(data, vae, plain, tmp_path, name):
    weights = trained(data, vae, tmp_path, **CHANGING[name])
    assert weights.keys() == plain.keys()
    assert any(not torch.equal(weights[key], plain[key]) for key in plain)


def test_variances_are_learned_and_no_part_of_the_pipeline(data, vae, plain, tmp_path):
    weights = trained(data, vae, tmp_path, **{"loss.learn_logvar": True, "loss.logvar_init": 0.5})
    assert weights.keys() == plain.keys()
    logvar = load_file(tmp_path / "checkpoint-2" / "model.safetensors")["logvar"]
    assert logvar.shape == (1000,) and 0 < (logvar != logvar.mode().values).sum() <= 8  # of the two batches of four


def test_a_run_goes_on_with_its_first_stage_in_another_place(data, vae, tmp_path):
    trained(data, vae, tmp_path / "run")
    moved = shutil.copytree(vae, tmp_path / "moved")
    resumed = {"resume_from_checkpoint": "latest", "max_train_steps": 4}
    assert trained(data, moved, tmp_path / "run", **resumed)
    with pytest.raises(ConfigError, match="are of another first stage"):
        trained(data, toy.write_vae(tmp_path / "other"), tmp_path / "run", **resumed)


def test_the_width_of_huber_acts(data, vae, tmp_path):
    runs = [trained(data, vae, tmp_path / str(c), **{"loss.type": "huber", "loss.huber_c": c}) for c in (0.1, 0.9)]
    assert any(not torch.equal(runs[0][key], runs[1][key]) for key in runs[0])


@pytest.mark.parametrize("model", ["AutoencoderKL", "VQModel"])
def test_gradient_checkpointing_of_a_first_stage(data, tmp_path, model):
    def go(**options):
        values = {
            "data.train_data_dir": str(data),
            "data.resolution": toy.SIDE,
            "train_batch_size": 4,
            "max_train_steps": 2,
        }
        values |= {
            "model": {"_class_name": model, **toy.VAE},
            "loss.adversarial.discriminator": {"channels": 4, "layers": 2},
            "report_to": "none",
            **options,
        }
        with counted() as calls:
            output = train_first_stage(load_recipe(FirstStageRecipe, None, values))
        return load_file(output / "vae" / "diffusion_pytorch_model.safetensors"), len(calls)

    (plain, once), (other, twice) = (
        go(output_dir=str(tmp_path / str(on)), gradient_checkpointing=on) for on in (False, True)
    )
    assert twice > 1.3 * once and all(torch.equal(plain[key], other[key]) for key in plain)


def test_gradient_checkpointing_computes_twice_and_changes_nothing(data, vae, plain, tmp_path):
    with counted() as twice:
        weights = trained(data, vae, tmp_path / "twice", gradient_checkpointing=True)
    with counted() as once:
        trained(data, vae, tmp_path / "once")
    assert len(twice) > 1.3 * len(once) and all(torch.equal(weights[key], plain[key]) for key in plain)


@pytest.mark.slow
def test_the_compiled_network_learns_the_same(data, vae, plain, tmp_path):
    """Its kernels round otherwise, and where a gradient is all rounding, AdamW makes a whole step of it."""
    torch._dynamo.utils.counters.clear()
    weights = trained(data, vae, tmp_path, torch_compile=True)
    assert torch._dynamo.utils.counters["frames"]["ok"] and weights.keys() == plain.keys()
    near = [torch.isclose(weights[key], plain[key], atol=1e-5).float().mean() for key in plain]
    assert min(near) > 0.9


def test_cpus_do_not_train_in_fp16(data, vae, tmp_path):
    with pytest.raises(ConfigError, match="mixed_precision is 'fp16', which CPUs don't train in; give 'bf16' or 'no'"):
        trained(data, vae, tmp_path / "out", mixed_precision="fp16")
    assert not (tmp_path / "out").exists()


BAD = {
    "loss": ({"loss.type": "l3"}, "loss.type is 'l3'; it must be 'l2' or 'l1' or 'huber'"),
    "width without huber": ({"loss.huber_c": 0.2}, "loss.huber_c is given, but type is 'l2'; leave it out"),
    "width": ({"loss.type": "huber", "loss.huber_c": 2}, "loss.huber_c is 2; it must be above 0 and at most 1"),
    "logvar": ({"loss.logvar_init": 0.3}, "loss.logvar_init is given, but learn_logvar is false; leave it out"),
    "norm": ({"optimizer.max_grad_norm": 0}, "optimizer.max_grad_norm is 0; it must be above 0; inf leaves"),
    "workers": ({"data.num_workers": -1}, "data.num_workers is -1; it must be at least 0"),
    "seed": ({"seed": -1}, "seed is -1; it must be at least 0"),
    "scale images": ({"latent_scale_images": 0}, "latent_scale_images is 0; it must be at least 1"),
    "names": (
        {"conditioning.type": "class-to-image", "conditioning.class_embedder": {"class_names": 5}},
        "class_names 5; give a list of names",
    ),
    "sample steps": (
        {"validation.steps": 1, "validation.inference_steps": 5000},
        "validation.inference_steps is 5000; it must be 1 to 1000",
    ),
    "bound": (
        {"loss.elbo_weight": 0.1, "noise_schedule": {"rescale_betas_zero_snr": True}},
        "loss.elbo_weight is 0.1, but where all is noise",
    ),
    "offset": ({"loss.noise_offset": -1}, "loss.noise_offset is -1; it must be at least 0"),
    "gamma": ({"loss.snr_gamma": 0}, "loss.snr_gamma is 0; it must be above 0, or null"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line(data, vae, tmp_path, name):
    options, message = BAD[name]
    with pytest.raises(ConfigError, match=message) as caught:
        toy.train("unconditional", data, vae, tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "log.jsonl").exists()
