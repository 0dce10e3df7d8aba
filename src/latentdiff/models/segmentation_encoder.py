"""The encoder of semantic maps, which are concatenated to the latents (section 4.4 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from latentdiff.errors import ConfigError, InputError
from latentdiff.io.palettes import parse_palette
from latentdiff.labels import check_class_names


class SegmentationEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Halves a one-hot map several times by bilinear interpolation, then maps its classes to few channels (1x1 conv).

    Args:
        in_channels: Number of classes.
        out_channels: Number of channels that are concatenated to the latents.
        num_stages: Number of halvings, log2 of the first stage's downsampling factor f.
        class_names: The name of each class, in order; None if classes have numbers only.
        palette: The colour of each class in order, (red, green, blue) from 0 to 255, by which coloured maps are read;
            None if there is none.

    Raises:
        ConfigError: If a number is not a positive integer, or there isn't one name or one colour for each class.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        in_channels: int = 182,
        out_channels: int = 3,
        num_stages: int = 2,
        class_names: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("num_stages", num_stages)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a positive integer")
        check_class_names(class_names, in_channels)
        if palette is not None:
            _check_palette(palette, in_channels)
        self.channel_mapper = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map one-hot maps (B, in_channels, H, W), float, to (B, out_channels, H / 2^n, W / 2^n), n = `num_stages`.

        Raises:
            InputError: If the maps have another number of channels, or sides that are no multiples of 2^n.
        """
        channels, factor = self.config["in_channels"], 2 ** self.config["num_stages"]
        if maps.ndim != 4 or maps.shape[1] != channels or not maps.is_floating_point():
            raise InputError(f"maps are {maps.dtype} of shape {tuple(maps.shape)}; give float (B, {channels}, H, W)")
        if maps.shape[2] % factor or maps.shape[3] % factor:
            raise InputError(f"maps are {maps.shape[2]}x{maps.shape[3]}; sides must be multiples of {factor}")
        for _ in range(self.config["num_stages"]):
            maps = F.interpolate(maps, scale_factor=0.5, mode="bilinear", align_corners=False)
        out: Tensor = self.channel_mapper(maps)
        return out


def _check_palette(palette: Sequence[Sequence[int]], count: int) -> None:
    try:
        colours = parse_palette(palette, count)
    except InputError as error:
        raise ConfigError(str(error)) from None
    if len(colours) != count:
        raise ConfigError(f"palette has {len(colours)} colours for {count} classes; give one each, or null")
