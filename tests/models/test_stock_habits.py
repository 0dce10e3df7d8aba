"""What diffusers does with networks: offloads, averages, scales their adapters, and runs them in its pipelines."""

import numpy as np
import pytest
import tiny
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from diffusers import DDIMScheduler as StockDDIM
from diffusers import DDPMPipeline, StableDiffusionPipeline
from diffusers import UNet2DConditionModel as StockUNet
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from transformers import CLIPTextConfig, CLIPTextModel

from latentdiff import ConfigError, InputError, LDMTextEncoder, UNet2DConditionModel, VQModel
from latentdiff.caching import CacheSchedule
from latentdiff.conditioning import Conditioning
from latentdiff.models.classifier import NoisyLatentClassifier
from latentdiff.nn.context import ContextCache
from latentdiff.sampling import Denoiser

SMALL = {"block_out_channels": (8, 16), "layers_per_block": 1, "num_attention_heads": 2, "norm_num_groups": 4}


CPU = torch.device("cpu")


def network(context=16, attention_levels=(True, True), **options):
    torch.manual_seed(0)
    made = UNet2DConditionModel(
        **SMALL, sample_size=8, attention_levels=attention_levels, cross_attention_dim=context, **options
    )
    tiny.randomise(made)
    return made.eval()


def inputs(context=16):
    rng = torch.Generator().manual_seed(1)
    states = None if context is None else torch.randn(4, 3, context, generator=rng)
    return torch.randn(2, 4, 8, 8, generator=rng), torch.tensor(7), states


def blocks(unet, _, device=CPU):
    unet.enable_group_offload(device, offload_type="block_level", num_blocks_per_group=1)


def leaves_from_disk(unet, folder, device):
    unet.enable_group_offload(device, offload_type="leaf_level", offload_to_disk_path=str(folder))


def split(unet, folder, device):
    places = {name: "disk" if "down" in name else str(device) for name, _ in unet.named_children()}
    dispatch_model(unet, places, main_device=str(device), offload_dir=str(folder), force_hooks=True)


OFFLOADS = {
    "blocks": blocks,
    "leaves": leaves_from_disk,
    "sequential": lambda unet, _, device: cpu_offload(unet, device),
    "disk": lambda unet, folder, device: disk_offload(unet, str(folder), device),
    "split device map": split,
}


@pytest.mark.thorough
@pytest.mark.parametrize("context", [16, None])
@pytest.mark.parametrize("way", OFFLOADS)
def test_offloading_makes_a_difference_of_0(tmp_path, way, context, placement):
    unet = placement.put(network(context))
    sample, timestep, states = (value if value is None else value.to(placement.device) for value in inputs(context))
    sample, states = placement.put(sample), None if states is None else placement.put(states)
    conditioning = Conditioning() if states is None else Conditioning(states[:2])
    with torch.no_grad():
        whole = unet(sample, timestep, states).sample
        bound = Denoiser(unet, conditioning)(sample, timestep, 0.0)
        OFFLOADS[way](unet, tmp_path, placement.device)
        placement.assert_same(unet(sample, timestep, states).sample, whole)
        placement.assert_same(Denoiser(unet, conditioning)(sample, timestep, 0.0), bound)
        placement.assert_same(unet(sample, timestep, states).sample, whole)


@pytest.mark.thorough
@pytest.mark.parametrize("way", OFFLOADS)
def test_features_are_cached_of_offloaded_networks(tmp_path, way, placement):
    unet, timesteps = placement.put(network()), torch.tensor([900, 700, 500]).to(placement.device)
    sample, states = (placement.put(value) for value in inputs()[::2])
    schedule = CacheSchedule.uniform(timesteps, 3, branch=1)

    def predictions():
        denoiser = Denoiser(unet, Conditioning(states[:2]), timesteps=timesteps, schedule=schedule)
        return torch.stack([denoiser(sample, timestep, n / 3) for n, timestep in enumerate(timesteps)])

    with torch.no_grad():
        whole = predictions()
        OFFLOADS[way](unet, tmp_path, placement.device)
        placement.assert_close(predictions(), whole)  # the timesteps were prepared


def test_offloading_blocks_to_the_disk(tmp_path):
    """Weights lie at other addresses then, for which some kernels of CPUs round otherwise: equal but for that."""
    unet, (sample, timestep, states) = network(), inputs()
    with torch.no_grad():
        whole = unet(sample, timestep, states).sample
        unet.enable_group_offload(
            torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
            offload_to_disk_path=str(tmp_path),
        )
        for _ in range(2):
            assert torch.allclose(unet(sample, timestep, states).sample, whole, atol=1e-5)


def test_the_context_is_cached_where_nothing_is_offloaded():
    unet, (_, _, states) = network(), inputs()
    assert isinstance(unet.prepare_context(states), ContextCache)
    cpu_offload(unet, "cpu")
    assert unet.prepare_context(states) is states


def test_offloading_a_classifier(tmp_path):
    torch.manual_seed(0)
    classifier = NoisyLatentClassifier(
        num_classes=3,
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(False, True),
        num_head_channels=4,
        norm_num_groups=4,
    ).eval()
    sample, timestep, _ = inputs()
    with torch.no_grad():
        whole = classifier(sample, timestep)
        blocks(classifier, tmp_path)
        assert torch.equal(classifier(sample, timestep), whole)


@pytest.mark.parametrize("levels", [(True, False), (False, True), (True, True)])
def test_scales_of_adapters_by_block(levels):
    unet = network(attention_levels=levels)
    for level, attends in enumerate(levels):
        assert hasattr(unet.down_blocks[level], "attentions") == attends
        assert hasattr(unet.up_blocks[1 - level], "attentions") == attends
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "one")
    at = levels.index(True)
    unet.set_adapters("one", {"down": {f"block_{at}": 0.25}, "mid": 0.5, "up": 0.75})
    scales = {name: module.scaling["one"] for name, module in unet.named_modules() if hasattr(module, "scaling")}
    assert scales
    for name, scale in scales.items():
        expected = {"down": 0.25 if f"down_blocks.{at}" in name else 1.0, "mid": 0.5, "up": 0.75}
        assert scale == expected[name.split("_", maxsplit=1)[0]] * 4, name  # lora_alpha 8 over rank 2


@pytest.mark.parametrize("kind", ["own", "stock", "text encoder", "vq"])
def test_ema_models_are_saved_and_loaded(tmp_path, kind):
    made = {
        "own": network,
        "stock": lambda: StockUNet(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
        ),
        "text encoder": lambda: LDMTextEncoder(vocab_size=9, hidden_size=16, num_hidden_layers=1),
        "vq": lambda: VQModel(3, 3, norm_num_groups=32, num_vq_embeddings=8),
    }[kind]()
    ema = EMAModel(made.parameters(), decay=0.77, model_cls=type(made), model_config=made.config)
    ema.step(made.parameters())
    ema.save_pretrained(tmp_path)
    loads = UNet2DConditionModel if kind == "stock" else type(made)
    again = EMAModel.from_pretrained(tmp_path, loads)
    assert again.decay == 0.77 and again.optimization_step == 1
    ours = dict(made.named_parameters())
    order = [name for name, _ in loads.from_pretrained(tmp_path).named_parameters()]
    assert all(torch.equal(shadow, ours[name]) for name, shadow in zip(order, again.shadow_params, strict=True))


def test_inputs_that_stock_pipelines_give():
    unet, (sample, timestep, states) = network(), inputs()
    plain = unet(sample, timestep, states).sample
    nothing = {
        "timestep_cond": None,
        "added_cond_kwargs": None,
        "class_labels": None,
        "attention_mask": None,
        "encoder_attention_mask": None,
        "cross_attention_kwargs": None,
    }
    assert torch.equal(unet(sample, timestep, encoder_hidden_states=states, **nothing, return_dict=False)[0], plain)
    assert torch.equal(unet(sample, timestep, states, added_cond_kwargs={}).sample, plain)
    assert unet.config.time_cond_proj_dim is None
    with pytest.raises(InputError, match="timestep_cond is given, but this network has no place"):
        unet(sample, timestep, states, timestep_cond=torch.zeros(2, 4))
    with pytest.raises(InputError, match="takes no 'class_label'; did you mean 'class_labels'"):
        unet(sample, timestep, states, class_label=None)
    with pytest.raises(InputError, match="cross_attention_kwargs has 'gligen'"):
        unet(sample, timestep, states, cross_attention_kwargs={"gligen": 1})
    with pytest.raises(ConfigError, match="time_cond_proj_dim is 64"):
        network(time_cond_proj_dim=64)


def test_the_scale_of_adapters_in_the_network():
    unet, (sample, timestep, states) = network(), inputs()
    plain = unet(sample, timestep, states).sample
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "one")
    full = unet(sample, timestep, states).sample
    none = unet(sample, timestep, states, cross_attention_kwargs={"scale": 0.0}).sample
    assert torch.allclose(none, plain, atol=1e-5) and not torch.allclose(full, plain, atol=1e-5)


def test_our_unet_in_stable_diffusion(tmp_path):
    """Stock pipelines run our network, with the images that the stock network of the same weights gives."""
    torch.manual_seed(0)
    stock = StockUNet(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
    ).eval()
    ours = UNet2DConditionModel.from_config(dict(stock.config)).eval()
    ours.load_state_dict(stock.state_dict())
    tokenizer = tiny.write_clip_tokenizer(tmp_path)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(tokenizer) - 2,
        eos_token_id=len(tokenizer) - 1,
    )
    parts = {
        "vae": tiny.unconditional(tmp_path).vae,
        "text_encoder": CLIPTextModel(config).eval(),
        "tokenizer": tokenizer,
        "scheduler": StockDDIM(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    images = []
    for unet in (stock, ours):
        pipe = StableDiffusionPipeline(unet=unet, **parts)
        pipe.set_progress_bar_config(disable=True)
        rng = torch.Generator().manual_seed(0)
        images.append(pipe("a cat", num_inference_steps=3, generator=rng, output_type="np").images)
    assert np.allclose(*images, atol=1e-5)


def test_our_unet_in_ddpm():
    unet = UNet2DConditionModel(
        **SMALL, sample_size=8, in_channels=3, out_channels=3, attention_levels=(False, True)
    ).eval()
    pipe = DDPMPipeline(unet, StockDDIM())
    pipe.set_progress_bar_config(disable=True)
    assert pipe(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 3)


def test_a_vq_model_takes_what_diffusers_takes():
    made = VQModel(3, 3, act_fn="silu", norm_type="group", lookup_from_codebook=False, force_upcast=False)
    assert (made.config.in_channels, made.config.scaling_factor) == (3, 1.0)
    assert dict(made.config) == dict(VQModel(in_channels=3, out_channels=3).config)
    assert VQModel.from_config(dict(made.config)).config.norm_type == "group"
    for options, message in (
        ({"norm_type": "spatial"}, "norm_type is 'spatial'; VQModel offers 'group' only"),
        ({"lookup_from_codebook": True}, "lookup_from_codebook is True; VQModel offers False only"),
        ({"num_vq_embedding": 8}, "VQModel has no option 'num_vq_embedding'; did you mean 'num_vq_embeddings'"),
    ):
        with pytest.raises(ConfigError, match=message):
            VQModel(**options)
    with pytest.raises(ConfigError, match="give it once"):
        VQModel(3, in_channels=3)
    with pytest.raises(ConfigError, match="takes 6 options by position, not 7"):
        VQModel(3, 3, ("DownEncoderBlock2D",), ("UpDecoderBlock2D",), (64,), 1, "silu")
