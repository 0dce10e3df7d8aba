"""The denoising network, a UNet (Ronneberger et al. 2015; section 3.2 and appendix E of the paper)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.utils.peft_utils import apply_lora_scale
from torch import Tensor, nn

from latentdiff.compat import OFFLOAD_HOOK
from latentdiff.errors import ConfigError, InputError
from latentdiff.models.unet_config import check_numbers, check_sample, check_stock_inputs, levels_of
from latentdiff.nn.attention import CrossAttention
from latentdiff.nn.blocks import BlockStyle, Context, DownBlock, Level, MidBlock, UpBlock
from latentdiff.nn.context import ContextCache, PreparedTimestep, RowOfMany, TimeEmbedding
from latentdiff.nn.layers import TimestepEmbedding, timestep_embedding, zero_init
from latentdiff.nn.resnet import ResnetBlock
from latentdiff.types import JSON

Given = ParamSpec("Given")
Result = TypeVar("Result")

OFFLOAD_HOOKS = (OFFLOAD_HOOK, "_diffusers_hook")  # attributes of modules with hooks of accelerate and of diffusers


@dataclass
class UNetOutput(UNet2DConditionOutput):  # type: ignore[misc]
    """The output of the network.

    Attributes:
        sample: The prediction (k * B, out_channels, H, W).
        features: The features (k * B, C, H', W') that enter the way up at the branch that is asked for; None if none
            is.
    """

    features: Tensor | None = None


def adapters_scaled(forward: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a `forward` by diffusers' scaling of adapters, which imports peft, where that is asked for."""
    scaled: Callable[Given, Result] = apply_lora_scale("cross_attention_kwargs")(forward)

    @functools.wraps(forward)
    def chosen(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        asked = kwargs.get("cross_attention_kwargs") is not None
        return scaled(*args, **kwargs) if asked else forward(*args, **kwargs)

    return chosen


class UNet2DConditionModel(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """Predicts the noise, the velocity or x0 from noisy latents at a timestep, with or without a context.

    It is one class for every model: unconditional, conditioned by cross-attention, or by channels concatenated to the
    input. Its parameters have diffusers' names, and configurations of diffusers' own UNets are accepted too.

    Args:
        sample_size: Height and width of the latents that it was trained on. Latents of other sizes work, too, if their
            sides are multiples of 2^(levels-1).
        in_channels: Channels of the input, including concatenated conditions.
        out_channels: Channels of the output.
        block_out_channels: Channels of every level, fine to coarse.
        layers_per_block: Number of residual blocks in a level on the way down; there is one more on the way up.
        attention_levels: For every level, fine to coarse, whether attention follows its residual blocks.
        mid_block_attention: Whether the middle has attention.
        cross_attention_dim: Channels of the context; None for self-attention alone and no context.
        transformer_layers_per_block: Number of transformer blocks in each spatial transformer, one for all levels or
            one for each.
        num_attention_heads: Number of attention heads, one for all levels or one for each. Give either this or
            `num_head_channels`.
        num_head_channels: Width of the attention heads.
        use_linear_projection: Whether spatial transformers project by linear layers instead of 1x1 convolutions.
        resnet_time_scale_shift: "default" adds the time embedding, "scale_shift" scales and shifts by it.
        resnet_resampling: Whether residual blocks instead of convolutions resample between levels.
        dropout: Dropout probability in the residual blocks.
        norm_num_groups: Groups of every GroupNorm.
        time_cond_proj_dim: Always None: the width of an embedding of the guidance scale, for which diffusers' pipelines
            look in the configuration.

    Raises:
        ConfigError: If an option is not valid.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("BasicTransformerBlock", "ResnetBlock", "SpatialSelfAttention")
    _skip_layerwise_casting_patterns = ("norm",)
    _repeated_blocks = ("BasicTransformerBlock", "ResnetBlock", "SpatialSelfAttention")

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        sample_size: int | Sequence[int] | None = None,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        mid_block_attention: bool = True,
        cross_attention_dim: int | None = None,
        transformer_layers_per_block: int | Sequence[int] = 1,
        num_attention_heads: int | Sequence[int] | None = None,
        num_head_channels: int | None = None,
        use_linear_projection: bool = False,
        resnet_time_scale_shift: str = "default",
        resnet_resampling: bool = False,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        time_cond_proj_dim: None = None,
    ) -> None:
        super().__init__()
        if time_cond_proj_dim is not None:
            raise ConfigError(f"time_cond_proj_dim is {time_cond_proj_dim!r}; this network takes no guidance embedding")
        positive = {"in_channels": in_channels, "out_channels": out_channels, "layers_per_block": layers_per_block}
        positive |= {"norm_num_groups": norm_num_groups}
        positive |= {} if cross_attention_dim is None else {"cross_attention_dim": cross_attention_dim}
        check_numbers(block_out_channels, positive, norm_num_groups, dropout, resnet_time_scale_shift)
        levels, middle = levels_of(
            block_out_channels=block_out_channels,
            attention_levels=attention_levels,
            mid_block_attention=mid_block_attention,
            num_attention_heads=num_attention_heads,
            num_head_channels=num_head_channels,
            transformer_layers_per_block=transformer_layers_per_block,
        )
        if cross_attention_dim is not None and not any(level.heads for level in [*levels, middle]):
            raise ConfigError(
                "cross_attention_dim is given but no level attends; set attention_levels, or leave it None"
            )
        width = block_out_channels[0]
        style = BlockStyle(
            temb_channels=4 * width,
            context_dim=cross_attention_dim,
            groups=norm_num_groups,
            dropout=dropout,
            scale_shift=resnet_time_scale_shift == "scale_shift",
            resnet_resampling=resnet_resampling,
            linear_projection=use_linear_projection,
        )
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time_embedding = TimestepEmbedding(width, 4 * width)
        self._build_levels(style, levels, middle, layers_per_block)
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, width, eps=1e-5)
        self.conv_out = zero_init(nn.Conv2d(width, out_channels, 3, padding=1))
        layers_with_context = list(self._cross_attentions())
        for index, layer in enumerate(layers_with_context):
            layer.index = index
        self._cached_layers = len(layers_with_context)  # counted here instead of at every step
        for index, block in enumerate(self._resnet_blocks()):
            block.index = index

    def _build_levels(self, style: BlockStyle, levels: list[Level], middle: Level, layers: int) -> None:
        """Make the blocks; `skips` holds the channels of the skip connections that `forward` pushes and pops."""
        skips = [levels[0].channels]
        below = levels[0].channels
        self.down_blocks = nn.ModuleList()
        for level in levels:
            last = level is levels[-1]
            self.down_blocks.append(DownBlock(style, level, below, layers, last=last))
            below = level.channels
            skips += [below] * (layers if last else layers + 1)
        self.mid_block = MidBlock(style, middle)
        self._skips = len(skips)
        self.up_blocks = nn.ModuleList()
        for level in reversed(levels):
            taken = [skips.pop() for _ in range(layers + 1)]
            self.up_blocks.append(UpBlock(style, level, below, taken, last=level is levels[0]))
            below = level.channels

    def _cross_attentions(self) -> Iterator[CrossAttention]:
        return (module for module in self.modules() if isinstance(module, CrossAttention))

    def _resnet_blocks(self) -> Iterator[ResnetBlock]:
        return (module for module in self.modules() if isinstance(module, ResnetBlock))

    def _is_offloaded(self) -> bool:
        """Whether hooks of diffusers or accelerate see to it that weights are at hand, during `forward` only."""
        return any(hasattr(module, hook) for module in self.modules() for hook in OFFLOAD_HOOKS)

    @property
    def cache_branches(self) -> int:
        """The number of branches for feature caching: that of the skip connections, counted from the outermost."""
        return self._skips

    def prepare_context(self, encoder_hidden_states: Tensor) -> ContextCache | Tensor:
        """The keys and values of every cross-attention, computed once; give them to `forward` at every step.

        An offloaded network has its weights at hand during `forward` only. Its context is returned as it is, and
        projected anew at every step.

        Args:
            encoder_hidden_states: Context (B, M, cross_attention_dim).

        Raises:
            InputError: If the network takes no context or one of another width.
        """
        self._check_context(encoder_hidden_states, encoder_hidden_states.shape[0])
        if self._is_offloaded():
            return encoder_hidden_states
        pairs = [layer.project(encoder_hidden_states) for layer in self._cross_attentions()]
        return ContextCache(tuple(key for key, _ in pairs), tuple(value for _, value in pairs))

    def prepare_timesteps(self, timesteps: Tensor) -> Sequence[TimeEmbedding]:
        """What residual blocks take of each timestep, computed in one pass; give them to `forward` one by one.

        A product of many rows sums in another order than one of a single row, so a prediction differs by rounding from
        that of the timestep itself. An offloaded network computes all of them in each `forward`, to the same bits, and
        so does a compiled one where it runs uncompiled. Where another `forward` is put in this one's place, timesteps
        are returned as they are.

        Args:
            timesteps: All timesteps of a run (N,).

        Returns:
            N prepared timesteps, each for all rows of a batch.
        """
        if self._is_offloaded() or getattr(self.forward, "takes_rows", False):
            return [RowOfMany(timesteps, number) for number in range(len(timesteps))]
        if getattr(self.forward, "__func__", None) is not type(self).forward:
            return timesteps.unbind()
        temb = self._embed(timesteps, self.conv_in.weight)
        rows = (block.time_emb_proj(temb).split(1) for block in self._resnet_blocks())
        return [PreparedTimestep(projections) for projections in zip(*rows, strict=True)]

    def _embed(self, timestep: Tensor | float, like: Tensor) -> Tensor:
        """The embedding (1 or N, C) of a timestep or several, after its SiLU, with `like`'s device and dtype."""
        embedding = timestep_embedding(timestep, self.time_embedding.linear_1.in_features, like.device)
        return F.silu(self.time_embedding(embedding.to(like.dtype)))

    @adapters_scaled
    def forward(
        self,
        sample: Tensor,
        timestep: float | TimeEmbedding,
        encoder_hidden_states: Context = None,
        return_dict: bool = True,
        *,
        cache_branch: int | None = None,
        cached_features: Tensor | None = None,
        cross_attention_kwargs: Mapping[str, object] | None = None,
        **stock_inputs: object,
    ) -> UNetOutput | tuple[Tensor, ...]:
        """The prediction at one timestep.

        With a context of k * B rows, the sample is repeated k times, as for classifier-free guidance, where the context
        is the null context of all B images, then their own. The layers before the first cross-attention are computed
        once for all of them.

        Feature caching (Ma et al. 2024, arXiv 2312.00858, section 3) goes the way up from a branch on: with
        `cache_branch` b the features that meet skip connection b, counted from the outermost, are returned beside the
        prediction. Given back at a later timestep as `cached_features`, they take the place of all that lies deeper, so
        that b layers on the way down and b + 1 on the way up are what remains to be computed.

        Args:
            sample: Noisy latents (B, in_channels, H, W), H and W multiples of 2^(levels-1).
            timestep: The timestep: a number, a 0-d tensor, a tensor (B,), or one of the results of `prepare_timesteps`.
            encoder_hidden_states: The context (k * B, M, cross_attention_dim), or the result of `prepare_context`.
            return_dict: Whether to return an object with the attributes `sample` and `features`, or a tuple.
            cache_branch: The branch for feature caching, in [0, `cache_branches`); None for no caching.
            cached_features: What a call with this `cache_branch` returned as `features`.
            cross_attention_kwargs: {"scale": s} for the strength of the LoRA adapters in this call, as in diffusers.
            **stock_inputs: The inputs that diffusers' pipelines give their own network, such as `timestep_cond` and
                `added_cond_kwargs`, all of them None.

        Returns:
            The prediction (k * B, out_channels, H, W), and the features if there is a `cache_branch`.

        Raises:
            InputError: If a shape is not as above, or an input is given that this network has no place for.
        """
        check_stock_inputs(cross_attention_kwargs, stock_inputs)
        check_sample(sample, timestep, self.config["in_channels"], 2 ** (len(self.down_blocks) - 1))
        context, batch = encoder_hidden_states, sample.shape[0]
        self._check_branch(cache_branch, cached_features, batch, self._check_context(context, batch))
        temb: TimeEmbedding
        if isinstance(timestep, PreparedTimestep):
            temb = timestep
        elif isinstance(timestep, RowOfMany):
            temb = timestep.map(lambda timesteps: self._embed(timesteps, sample))
        else:
            temb = self._embed(timestep, sample)
        reused = 0 if cache_branch is None else cache_branch + 1  # skip connections of an evaluation with features
        if cached_features is None:
            skips = self._down(sample, temb, context, self._skips)
            hidden = self._up(self.mid_block(skips[-1], temb, context), temb, context, skips, end=reused)
        else:
            skips, hidden = self._down(sample, temb, context, reused), cached_features
        features = hidden if reused else None
        if reused:
            hidden = self._up(hidden, temb, context, skips[:reused])
        hidden = self.conv_out(F.silu(self.conv_norm_out(hidden)))
        if not return_dict:
            return (hidden,) if features is None else (hidden, features)
        return UNetOutput(sample=hidden, features=features)

    def _down(self, sample: Tensor, temb: TimeEmbedding, context: Context, count: int) -> tuple[Tensor, ...]:
        """The first `count` skip connections, from the outermost."""
        skips: tuple[Tensor, ...] = (self.conv_in(sample),)
        for block in self.down_blocks:
            if len(skips) == count:
                break
            skips += block(skips[-1], temb, context, count - len(skips))
        return skips

    def _up(
        self, hidden: Tensor, temb: TimeEmbedding, context: Context, skips: tuple[Tensor, ...], end: int = 0
    ) -> Tensor:
        """Go up through the layers that `skips` belong to, the last first, as far as that of skip connection `end`."""
        place = self._skips  # one above the number of the skip connection that the next layer takes
        for block in self.up_blocks:
            layers = len(cast(UpBlock, block).resnets)
            first, last = min(place, len(skips)), max(place - layers, end)
            if last < first:
                hidden = block(hidden, temb, context, skips[last:first], place - first)
            place -= layers
        return hidden

    def _check_branch(self, branch: int | None, features: Tensor | None, batch: int, rows: int) -> None:
        """InputError unless there is such a branch, and the features are of `batch` samples or `rows` predictions."""
        if branch is None:
            if features is not None:
                raise InputError("cached_features are given without the cache_branch that they are of; give both")
        elif isinstance(branch, bool) or not isinstance(branch, int) or not 0 <= branch < self._skips:
            raise InputError(f"cache_branch is {branch!r}; this network has the branches 0 to {self._skips - 1}")
        elif features is not None and len(features) not in (batch, rows):
            raise InputError(f"cached_features have batch {len(features)}; this call takes those of {rows}")

    def _check_context(self, context: Context, batch: int) -> int:
        """The rows of the prediction; InputError unless the network takes such a context of a multiple of `batch`."""
        width = self.config["cross_attention_dim"]
        if context is None:
            if width is not None:
                raise InputError(f"encoder_hidden_states is missing; this network needs a context (B, M, {width})")
            return batch
        if width is None:
            raise InputError("encoder_hidden_states is given, but this network takes no context; leave it out")
        if isinstance(context, ContextCache):
            rows, layers = context.batch_size, self._cached_layers
            if len(context.keys) != layers:
                raise InputError(
                    f"the context cache has {len(context.keys)} layers, this network {layers}; call its prepare_context"
                )
        else:
            rows = context.shape[0]
            if context.ndim != 3 or context.shape[2] != width:
                raise InputError(
                    f"encoder_hidden_states has shape {tuple(context.shape)}; this network takes (B, M, {width})"
                )
        if rows == 0 or rows % batch:
            raise InputError(f"encoder_hidden_states has batch {rows}; it must be a multiple of the sample's {batch}")
        return rows

    @classmethod
    def from_config(
        cls, config: JSON | str | Path | None = None, return_unused_kwargs: bool = False, **kwargs: object
    ) -> Any:
        """Make a network from a configuration of this class or of diffusers' UNets of 2D images.

        Args:
            config: The configuration, or a folder that holds it.
            return_unused_kwargs: Whether to return a pair with the entries that are no options of the network, too.
            **kwargs: Options that take precedence over the configuration's.
        """
        from latentdiff.models.stock_config import is_stock_config, others_than_stock, translate_stock_config

        if isinstance(config, (str, Path)):  # diffusers' EMAModel.from_pretrained gives a folder
            config = cast(JSON, cls.load_config(config))
        if config is not None and is_stock_config(config):
            config = translate_stock_config(config) | (others_than_stock(config) if return_unused_kwargs else {})
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)
