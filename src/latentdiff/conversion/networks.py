"""From the original's parameters of each network to our component: its class, its configuration and its rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

from latentdiff.conversion.nodes import (
    MAX_LAYERS,
    MAX_LEVELS,
    REQUIRED,
    class_of,
    integer_list,
    params_of,
    positive_integer,
    share,
    take_params,
)
from latentdiff.conversion.rules import (
    CLIP_RULES,
    OPEN_CLIP_RULES,
    SAME_RULES,
    TEXT_RULES,
    Rules,
    classifier_rules,
    first_stage_rules,
    unet_rules,
)
from latentdiff.errors import ConfigError
from latentdiff.types import JSON, Tokenizer


@dataclass(frozen=True)
class Network:
    """A component to be made.

    Attributes:
        component: The component's class, or a function that makes it.
        config: The arguments of the constructor.
        rules: The rules for the names of its tensors.
        prefix: The prefix of all its names in the original, after the component's own prefix in the checkpoint.
        dropped: Prefixes, after the component's own, of tensors that this component doesn't need.
        optional: A piece of the original's names, after the component's own prefix, that some checkpoints leave out.
        tokenizer: The function that makes the tokenizer of a text encoder, which no checkpoint holds; None if the
            package doesn't have it.
    """

    component: Callable[..., nn.Module]
    config: JSON
    rules: Rules
    prefix: str = ""
    dropped: tuple[str, ...] = ()
    optional: str = ""
    tokenizer: Callable[[], Tokenizer] | None = None


# For each kind of network: the parameters that we translate, those that must have a certain value, and those that
# don't change the network.
UNET_KNOWN: dict[str, object] = {
    "image_size": None,
    "in_channels": REQUIRED,
    "out_channels": REQUIRED,
    "model_channels": REQUIRED,
    "attention_resolutions": REQUIRED,
    "num_res_blocks": REQUIRED,
    "channel_mult": (1, 2, 4, 8),
    "num_heads": -1,
    "num_head_channels": -1,
    "use_scale_shift_norm": False,
    "resblock_updown": False,
    "use_spatial_transformer": False,
    "transformer_depth": 1,
    "context_dim": None,
    "use_linear_in_transformer": False,
    "dropout": 0.0,
}
UNET_FIXED: dict[str, tuple[object, ...]] = {
    "dims": (2,),
    "conv_resample": (True,),
    "num_classes": (None,),
    "n_embed": (None,),
    "use_new_attention_order": (False,),
    "num_heads_upsample": (-1,),
}
UNET_IGNORED = ("use_checkpoint", "use_fp16", "use_bf16", "legacy")


def unet_network(node: object, sample_size: int | None) -> Network:
    """The UNet of the node `unet_config`, for latents of `sample_size` pixels a side.

    Raises:
        ConfigError: If it has another class, or is a network that our UNet can't be.
    """
    from latentdiff.models.unet import UNet2DConditionModel

    if class_of(node, "unet_config") != "UNetModel":
        raise ConfigError(
            f"unet_config has the class {class_of(node, 'unet_config')!r}; only UNetModel can be converted"
        )
    given = take_params(
        params_of(node, "unet_config"), "unet_config", known=UNET_KNOWN, fixed=UNET_FIXED, ignored=UNET_IGNORED
    )
    context = None
    if given["use_spatial_transformer"]:
        if given["context_dim"] is None:
            raise ConfigError("unet_config lacks context_dim, which use_spatial_transformer needs; add it")
        context = positive_integer(given["context_dim"], "unet_config.context_dim")
    config = {
        "sample_size": sample_size or given["image_size"],
        "out_channels": positive_integer(given["out_channels"], "unet_config.out_channels"),
        "cross_attention_dim": context,
        "transformer_layers_per_block": positive_integer(given["transformer_depth"], "transformer_depth", MAX_LAYERS),
        "use_linear_projection": bool(given["use_linear_in_transformer"]),
        **_levels(given, "unet_config"),
    }
    rules = unet_rules(config["layers_per_block"], config["attention_levels"], True, plain=context is None)
    return Network(UNet2DConditionModel, config, rules)


def _levels(given: JSON, where: str) -> JSON:
    """The options that UNets and classifiers share; `where` is what messages call the node."""
    width = positive_integer(given["model_channels"], f"{where}.model_channels")
    multipliers = integer_list(given["channel_mult"], f"{where}.channel_mult")
    factors = integer_list(given["attention_resolutions"], f"{where}.attention_resolutions")
    heads = {"num_attention_heads": given["num_heads"]}
    if given["num_head_channels"] != -1:
        heads = {"num_head_channels": given["num_head_channels"]}
    return {
        "in_channels": positive_integer(given["in_channels"], f"{where}.in_channels"),
        "block_out_channels": tuple(width * factor for factor in multipliers),
        "layers_per_block": positive_integer(given["num_res_blocks"], f"{where}.num_res_blocks", MAX_LAYERS),
        "attention_levels": tuple(2**level in factors for level in range(len(multipliers))),
        "resnet_time_scale_shift": "scale_shift" if given["use_scale_shift_norm"] else "default",
        "resnet_resampling": bool(given["resblock_updown"]),
        "dropout": share(given["dropout"], f"{where}.dropout"),
        **{name: positive_integer(value, f"{where}'s {name}") for name, value in heads.items()},
    }


CLASSIFIER_CLASSES = ("EncoderUNetModel",)
CLASSIFIER_KNOWN = {
    **{name: UNET_KNOWN[name] for name in UNET_KNOWN if "transformer" not in name and name != "context_dim"},
    "image_size": REQUIRED,
    "num_heads": 1,
    "pool": "adaptive",
}


def classifier_network(node: object) -> Network:
    """The noisy-latent classifier of a node of `EncoderUNetModel`, the network of `NoisyLatentImageClassifier`.

    Raises:
        ConfigError: If it is a network that our classifier can't be.
    """
    from latentdiff.models.classifier import NoisyLatentClassifier

    where = "the classifier"
    given = take_params(params_of(node, where), where, known=CLASSIFIER_KNOWN, fixed=UNET_FIXED, ignored=UNET_IGNORED)
    config = {
        "sample_size": positive_integer(given["image_size"], f"{where}.image_size"),
        "num_classes": positive_integer(given["out_channels"], f"{where}.out_channels"),
        "pool": given["pool"],
        **_levels(given, where),
    }
    rules = classifier_rules(config["layers_per_block"], config["attention_levels"])
    return Network(NoisyLatentClassifier, config, rules)


DDCONFIG_KNOWN: dict[str, object] = {
    "double_z": True,
    "z_channels": REQUIRED,
    "resolution": REQUIRED,
    "in_channels": REQUIRED,
    "out_ch": REQUIRED,
    "ch": REQUIRED,
    "ch_mult": (1, 2, 4, 8),
    "num_res_blocks": REQUIRED,
    "attn_resolutions": REQUIRED,
    "attn_type": "vanilla",
}
DDCONFIG_FIXED: dict[str, tuple[object, ...]] = {
    "resamp_with_conv": (True,),
    "give_pre_end": (False,),
    "tanh_out": (False,),
    "use_linear_attn": (False,),
    "attn_type": ("vanilla", "none", "vanilla-xformers"),
}
FIRST_STAGE_KNOWN: dict[str, object] = {"embed_dim": REQUIRED, "ddconfig": REQUIRED, "n_embed": None}
FIRST_STAGE_FIXED: dict[str, tuple[object, ...]] = {"remap": (None,), "sane_index_shape": (False, True)}
FIRST_STAGE_IGNORED = (
    "lossconfig",
    "monitor",
    "ckpt_path",
    "ignore_keys",
    "image_key",
    "colorize_nlabels",
    "batch_resize_range",
    "scheduler_config",
    "lr_g_factor",
    "use_ema",
)
KL_CLASSES = ("AutoencoderKL",)
VQ_CLASSES = ("VQModel", "VQModelInterface")

# diffusers' block types of a level, by whether it has attention.
ENCODER_BLOCKS = {False: "DownEncoderBlock2D", True: "AttnDownEncoderBlock2D"}
DECODER_BLOCKS = {False: "UpDecoderBlock2D", True: "AttnUpDecoderBlock2D"}


def first_stage_network(node: object, scale_factor: float = 1.0) -> Network:
    """The autoencoder of the node `first_stage_config`, or of a first stage's own YAML.

    Raises:
        ConfigError: If it has another class, or is a network that diffusers' autoencoders can't be.
    """
    from diffusers import AutoencoderKL

    from latentdiff.models.autoencoder_vq import VQModel

    where, name = "first_stage_config", class_of(node, "first_stage_config")
    if name not in KL_CLASSES + VQ_CLASSES:
        allowed = ", ".join(KL_CLASSES + VQ_CLASSES)
        raise ConfigError(f"{where} has the class {name!r}; these can be converted: {allowed}")
    given = take_params(
        params_of(node, where), where, known=FIRST_STAGE_KNOWN, fixed=FIRST_STAGE_FIXED, ignored=FIRST_STAGE_IGNORED
    )
    inner = params_of({"params": given["ddconfig"]}, f"{where}.ddconfig")
    network = take_params(inner, f"{where}.ddconfig", known=DDCONFIG_KNOWN, fixed=DDCONFIG_FIXED, ignored=("dropout",))
    latents = positive_integer(network["z_channels"], "ddconfig.z_channels")
    config = _autoencoder(network, latents)
    config["scaling_factor"] = scale_factor
    rules = first_stage_rules(len(config["block_out_channels"]))
    if name in VQ_CLASSES:
        config |= {
            "num_vq_embeddings": positive_integer(given["n_embed"], f"{where}.n_embed"),
            "vq_embed_dim": positive_integer(given["embed_dim"], f"{where}.embed_dim"),
        }
        return Network(VQModel, config, rules)
    if given["embed_dim"] != latents or not network["double_z"]:
        raise ConfigError(
            f"{where} has embed_dim {given['embed_dim']}, z_channels {latents} and double_z {network['double_z']}; "
            "a KL autoencoder can be converted where the first two are equal and double_z is true"
        )
    return Network(AutoencoderKL, config, rules)


def _autoencoder(network: JSON, latents: int) -> JSON:
    """The options that KL and VQ autoencoders share.

    A level has attention if its side, for training images, is among the `attn_resolutions`.
    """
    channels = integer_list(network["ch_mult"], "ddconfig.ch_mult")
    side = positive_integer(network["resolution"], "ddconfig.resolution")
    listed = integer_list(network["attn_resolutions"], "ddconfig.attn_resolutions")
    attends = [network["attn_type"] != "none" and side // 2**i in listed for i in range(len(channels))]
    width = positive_integer(network["ch"], "ddconfig.ch")
    return {
        "in_channels": positive_integer(network["in_channels"], "ddconfig.in_channels"),
        "out_channels": positive_integer(network["out_ch"], "ddconfig.out_ch"),
        "block_out_channels": tuple(width * factor for factor in channels),
        "layers_per_block": positive_integer(network["num_res_blocks"], "ddconfig.num_res_blocks", MAX_LAYERS),
        "latent_channels": latents,
        "sample_size": side,
        "down_block_types": tuple(ENCODER_BLOCKS[attend] for attend in attends),
        "up_block_types": tuple(DECODER_BLOCKS[attend] for attend in reversed(attends)),
        "mid_block_add_attention": network["attn_type"] != "none",
    }


BERT_TOKENS = 30522


def text_transformer_network(node: object) -> Network:
    """The text encoder of a node of `BERTEmbedder`, with a tokenizer for text or without one for layouts."""
    from latentdiff.models.text_encoder import LDMTextEncoder
    from latentdiff.models.tokenizer import BERT_VOCABULARY, load_tokenizer

    known = {
        "n_embed": REQUIRED,
        "n_layer": REQUIRED,
        "vocab_size": BERT_TOKENS,
        "max_seq_len": 77,
        "use_tokenizer": True,
    }
    given = take_params(
        params_of(node, "cond_stage_config"),
        "cond_stage_config",
        known=known,
        fixed={},
        ignored=("device", "embedding_dropout"),
    )
    config = {
        "vocab_size": positive_integer(given["vocab_size"], "cond_stage_config.vocab_size"),
        "max_position_embeddings": positive_integer(given["max_seq_len"], "cond_stage_config.max_seq_len"),
        "hidden_size": positive_integer(given["n_embed"], "cond_stage_config.n_embed"),
        "num_hidden_layers": positive_integer(given["n_layer"], "cond_stage_config.n_layer", MAX_LAYERS),
    }
    has_vocabulary = given["use_tokenizer"] and config["vocab_size"] == BERT_TOKENS
    tokenizer = partial(load_tokenizer, BERT_VOCABULARY, config["max_position_embeddings"]) if has_vocabulary else None
    return Network(LDMTextEncoder, config, TEXT_RULES, "transformer.", ("transformer.to_logits.",), tokenizer=tokenizer)


NULL_CLASSES = {1001: 1000}
"""The null class of guidance, by the number of classes: cin256-v2 has it after the thousand of ImageNet."""


def class_embedder_network(node: object) -> Network:
    """The class embedder of a node of `ClassEmbedder`."""
    from latentdiff.models.class_embedder import ClassEmbedder

    given = take_params(
        params_of(node, "cond_stage_config"),
        "cond_stage_config",
        known={"embed_dim": REQUIRED, "n_classes": 1000},
        fixed={},
        ignored=("key",),
    )
    count = positive_integer(given["n_classes"], "cond_stage_config.n_classes")
    embedding = positive_integer(given["embed_dim"], "cond_stage_config.embed_dim")
    config = {"num_classes": count, "embed_dim": embedding, "null_class": NULL_CLASSES.get(count)}
    return Network(ClassEmbedder, config, SAME_RULES)


def segmentation_encoder_network(node: object) -> Network:
    """The segmentation encoder of a node of `SpatialRescaler`."""
    from latentdiff.models.segmentation_encoder import SegmentationEncoder

    given = take_params(
        params_of(node, "cond_stage_config"),
        "cond_stage_config",
        known={"n_stages": 1, "in_channels": REQUIRED, "out_channels": REQUIRED},
        fixed={"method": ("bilinear",), "multiplier": (0.5,), "bias": (False,)},
        ignored=(),
    )
    config = {
        "in_channels": positive_integer(given["in_channels"], "cond_stage_config.in_channels"),
        "out_channels": positive_integer(given["out_channels"], "cond_stage_config.out_channels"),
        "num_stages": positive_integer(given["n_stages"], "cond_stage_config.n_stages", MAX_LEVELS),
    }
    return Network(SegmentationEncoder, config, SAME_RULES)


def clip_text_encoder_network(node: object) -> Network:
    """The text encoder of a node of `FrozenCLIPEmbedder`, in SD 1.x: CLIP ViT-L/14."""
    from latentdiff.models.tokenizer import clip_tokenizer

    fixed = {"version": ("openai/clip-vit-large-patch14",), "layer": ("last",), "layer_idx": (None,)}
    _only_fixed(node, {**fixed, "max_length": (77,)})
    config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    dropped = ("transformer.text_model.embeddings.position_ids",)
    return Network(
        make_clip, config, CLIP_RULES, "transformer.", dropped, optional="text_model.", tokenizer=clip_tokenizer
    )


def open_clip_text_encoder_network(node: object) -> Network:
    """The text encoder of a node of `FrozenOpenCLIPEmbedder`, in SD 2.x: OpenCLIP ViT-H/14 without its last layer."""
    from latentdiff.models.tokenizer import open_clip_tokenizer

    _only_fixed(node, {"arch": ("ViT-H-14",), "layer": ("penultimate",), "max_length": (77,)})
    config = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    }
    last = ("model.transformer.resblocks.23.", "model.text_projection", "model.logit_scale", "model.attn_mask")
    return Network(make_clip, config, OPEN_CLIP_RULES, "model.", last, tokenizer=open_clip_tokenizer)


def _only_fixed(node: object, fixed: Mapping[str, tuple[object, ...]]) -> None:
    """ConfigError unless a conditioning stage has no parameters but these, at these values."""
    ignored = ("device", "freeze", "use_fp16")
    take_params(params_of(node, "cond_stage_config"), "cond_stage_config", known={}, fixed=fixed, ignored=ignored)


def make_clip(**config: object) -> nn.Module:
    """Make transformers' CLIP text model for CLIP's vocabulary of 49408 tokens and prompts of 77 tokens."""
    from transformers import CLIPTextConfig, CLIPTextModel

    common = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 2}
    model: nn.Module = CLIPTextModel(CLIPTextConfig(**{**common, **config}))
    return model
