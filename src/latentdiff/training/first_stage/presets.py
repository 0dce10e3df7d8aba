"""Networks of first stages by their downsampling factor (appendix G and table 8 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from latentdiff.config import check
from latentdiff.types import JSON

FACTOR, BASE = "downsampling_factor", "base_channels"
"""The entries of `model` that ask for a preset: f, and the channels of the finest level."""
PAPER_CHANNELS, GROUPS = 128, 32


@dataclass(frozen=True)
class Preset:
    """What a factor chooses.

    Attributes:
        widths: Channels of every level, fine to coarse, as multiples of the finest's.
        attention: Number of the coarsest levels that have attention.
        latent_channels: Channels of the latents, of KL and of VQ.
        codes: Codes of VQ.
    """

    widths: tuple[int, ...]
    attention: int
    latent_channels: Mapping[str, int]
    codes: int


def _latents(kl: int, vq: int) -> Mapping[str, int]:
    return {"AutoencoderKL": kl, "VQModel": vq}


PRESETS = {
    1: Preset((1,), 0, _latents(3, 3), 2048),
    2: Preset((1, 2), 0, _latents(2, 2), 2048),
    4: Preset((1, 2, 4), 0, _latents(3, 3), 8192),
    8: Preset((1, 2, 4, 4), 0, _latents(4, 4), 16384),
    16: Preset((1, 1, 2, 2, 4), 1, _latents(16, 8), 16384),
    32: Preset((1, 1, 2, 2, 4, 4), 2, _latents(64, 32), 16384),
}
"""By f: the paper's numbers, but that f = 8 is its KL model for VQ as well, and that it has no f = 1 and no KL at 2."""


def expanded(model: JSON) -> JSON:
    """Constructor arguments in which the factor stands for the preset's, which others that are given replace.

    Args:
        model: Arguments, with `downsampling_factor` and, if it isn't the paper's 128, `base_channels`; without the
            first they stay as they are.

    Raises:
        ConfigError: If there is no preset of the factor, or the channels are no multiple of 4.
    """
    if FACTOR not in model:
        check(BASE not in model, f"model has {BASE}, but no {FACTOR}, which it belongs to; give both, or neither")
        return model
    given = dict(model)
    f, base = given.pop(FACTOR), given.pop(BASE, PAPER_CHANNELS)
    check(
        isinstance(f, int) and f in PRESETS,
        f"model has {FACTOR} {f!r}; it must be {', '.join(map(str, PRESETS))}",
    )
    check(
        isinstance(base, int) and base > 0 and base % 4 == 0,
        f"model has {BASE} {base!r}; it must be a multiple of 4 above 0",
    )
    preset, kind = PRESETS[f], given.get("_class_name", "AutoencoderKL")
    levels = len(preset.widths)
    coarse = [level >= levels - preset.attention for level in range(levels)]
    options: JSON = {
        "block_out_channels": [base * width for width in preset.widths],
        "layers_per_block": 2,
        "down_block_types": ["AttnDownEncoderBlock2D" if attention else "DownEncoderBlock2D" for attention in coarse],
        "up_block_types": ["AttnUpDecoderBlock2D" if attention else "UpDecoderBlock2D" for attention in coarse[::-1]],
        "norm_num_groups": GROUPS if base % GROUPS == 0 else 4,
    }
    if kind != "FSQModel":  # whose channels follow from its levels
        options["latent_channels"] = preset.latent_channels["VQModel" if "VQ" in kind else "AutoencoderKL"]
    if "VQ" in kind:
        options["num_vq_embeddings"] = preset.codes
    return {**options, **given}
