"""State dicts of the original code under our parameter names. Rules lead from our name to the original one."""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
Rule = tuple[str, Callable[..., str]]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
PLAIN_ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv"}
FIRST_STAGE_ATTENTION = {"group_norm": "norm", "to_out.0": "proj_out", "to_q": "q", "to_k": "k", "to_v": "v"}


def unet_rules(layers: int, attention_levels: tuple[bool, ...], mid_attention: bool) -> list[Rule]:
    per_level = layers + 1
    coarse_first = attention_levels[::-1]
    return [
        (r"conv_in\.", lambda: "input_blocks.0.0."),
        (r"time_embedding\.linear_(\d)\.", lambda n: f"time_embed.{2 * (n - 1)}."),
        (r"conv_norm_out\.", lambda: "out.0."),
        (r"conv_out\.", lambda: "out.2."),
        (r"down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"input_blocks.{1 + i * per_level + j}.0."),
        (r"down_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"input_blocks.{1 + i * per_level + j}.1."),
        (r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.", lambda i: f"input_blocks.{(i + 1) * per_level}.0.op."),
        (r"down_blocks\.(\d+)\.downsamplers\.0\.", lambda i: f"input_blocks.{(i + 1) * per_level}.0."),
        (r"mid_block\.resnets\.(\d)\.", lambda j: f"middle_block.{j * (1 + mid_attention)}."),
        (r"mid_block\.attentions\.0\.", lambda: "middle_block.1."),
        (r"up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"output_blocks.{i * per_level + j}.0."),
        (r"up_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"output_blocks.{i * per_level + j}.1."),
        (
            r"up_blocks\.(\d+)\.upsamplers\.0\.",
            lambda i: f"output_blocks.{i * per_level + layers}.{1 + coarse_first[i]}.",
        ),
    ]


TEXT_RULES: list[Rule] = [
    (r"model\.embed_tokens\.", lambda: "token_emb."),
    (r"model\.embed_positions\.", lambda: "pos_emb.emb."),
    (r"model\.layer_norm\.", lambda: "norm."),
    (r"model\.layers\.(\d+)\.self_attn_layer_norm\.", lambda n: f"attn_layers.layers.{2 * n}.0."),
    (r"model\.layers\.(\d+)\.self_attn\.", lambda n: f"attn_layers.layers.{2 * n}.1."),
    (r"model\.layers\.(\d+)\.final_layer_norm\.", lambda n: f"attn_layers.layers.{2 * n + 1}.0."),
    (r"model\.layers\.(\d+)\.fc1\.", lambda n: f"attn_layers.layers.{2 * n + 1}.1.net.0.0."),
    (r"model\.layers\.(\d+)\.fc2\.", lambda n: f"attn_layers.layers.{2 * n + 1}.1.net.2."),
]
TEXT_ATTENTION = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def first_stage_rules(levels: int) -> list[Rule]:
    return [
        (r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"encoder.down.{i}.block.{j}."),
        (r"encoder\.down_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"encoder.down.{i}.attn.{j}."),
        (r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", lambda i: f"encoder.down.{i}.downsample."),
        (r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"decoder.up.{levels - 1 - i}.block.{j}."),
        (r"decoder\.up_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"decoder.up.{levels - 1 - i}.attn.{j}."),
        (r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda i: f"decoder.up.{levels - 1 - i}.upsample."),
        (r"mid_block\.resnets\.(\d)\.", lambda j: f"mid.block_{j + 1}."),
        (r"mid_block\.attentions\.0\.", lambda: "mid.attn_1."),
        (r"conv_norm_out\.", lambda: "norm_out."),
        (r"conv_shortcut\.", lambda: "nin_shortcut."),
    ]


def original_key(key: str, rules: list[Rule], attention: Mapping[str, str], resnet: Mapping[str, str]) -> str:
    """Apply every rule, then rename the layer inside a block."""
    for pattern, place in rules:
        key = re.sub(pattern, lambda match, place=place: place(*map(int, match.groups())), key)
    block, _, name = key.rpartition(".")
    for ours, theirs in {**attention, **resnet}.items():
        if block.endswith("." + ours) and "transformer_blocks" not in block:
            block = block.removesuffix(ours) + theirs
            break
    return f"{block}.{name}"


def split_qkv(joined: Tensor, part: str, heads: int) -> Tensor:
    """Rows of q, k or v from a projection whose rows run over (heads, q k v, width)."""
    q, k, v = joined.unflatten(0, (heads, 3, -1)).unbind(1)
    return {"to_q": q, "to_k": k, "to_v": v}[part].flatten(0, 1)


def convert(
    model: torch.nn.Module,
    original: Mapping[str, Tensor],
    rules: list[Rule],
    attention: Mapping[str, str],
    resnet: Mapping[str, str] | None = None,
) -> None:
    """Load the original weights into `model`, reshaping 1x1 convolutions to linear layers; every key must be used."""
    state, used = {}, set()
    for key, parameter in model.state_dict().items():
        theirs = original_key(key, rules, attention, resnet or {})
        tensor = original[theirs].float()
        used.add(theirs)
        if ".qkv." in theirs:
            path, part, _ = key.rsplit(".", 2)
            tensor = split_qkv(tensor, part, model.get_submodule(path).heads)
        state[key] = tensor.reshape(parameter.shape)
    assert used == set(original), sorted(set(original) ^ used)[:5]
    model.load_state_dict(state)


def below(state: Mapping[str, Tensor], prefix: str) -> StateDict:
    """The entries below a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def ema_weights(state: Mapping[str, Tensor]) -> StateDict:
    """The averaged UNet under the raw UNet's names: EMA buffers bear the names of parameters without their dots."""
    names = [key.removeprefix("model.") for key in state if key.startswith("model.diffusion_model.")]
    ema = {name: state["model_ema." + name.replace(".", "")] for name in names}
    return below(ema, "diffusion_model.")
