"""The text transformer that is trained with the UNet (section 4.3.1 of the paper; "BERT" in the original code)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from latentdiff.errors import ConfigError, InputError
from latentdiff.nn.text import TextTransformer
from latentdiff.types import JSON


@dataclass
class TextEncoderOutput(BaseOutput):  # type: ignore[misc]
    """The output of the text encoder.

    Attributes:
        last_hidden_state: The context (B, M, hidden_size).
    """

    last_hidden_state: Tensor


class LDMTextEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Encodes token ids (B, M) to a context (B, M, hidden_size); padding is attended to like any token.

    Its parameters have the names of diffusers' `LDMBertModel`, whose unused `to_logits` is left out.

    Args:
        vocab_size: Number of token ids.
        max_position_embeddings: Length of the longest sequence.
        hidden_size: Channels of the tokens and of the context.
        num_hidden_layers: Number of layers.
        num_attention_heads: Number of attention heads in every layer.
        attention_head_dim: Width of a head, which does not depend on the hidden size.

    Raises:
        ConfigError: If a number is not a positive integer.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("TextLayer",)
    _repeated_blocks = ("TextLayer",)
    _skip_layerwise_casting_patterns = ("norm", "embed_positions")
    _keys_to_ignore_on_load_unexpected = (r"to_logits\.",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        max_position_embeddings: int = 77,
        hidden_size: int = 1280,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 8,
        attention_head_dim: int = 64,
    ) -> None:
        super().__init__()
        for name, value in self.config.items():
            if not name.startswith("_") and not (isinstance(value, int) and value > 0):
                raise ConfigError(f"{name} is {value!r}; it must be a positive integer")
        self.model = TextTransformer(
            vocabulary=vocab_size,
            positions=max_position_embeddings,
            width=hidden_size,
            layers=num_hidden_layers,
            heads=num_attention_heads,
            head_dim=attention_head_dim,
        )

    def forward(self, input_ids: Tensor, return_dict: bool = True) -> TextEncoderOutput | tuple[Tensor]:
        """Encode tokens.

        Args:
            input_ids: Token ids (B, M) in [0, vocab_size), M at most `max_position_embeddings`. Their range is checked
                on the CPU only, since a check on another device would have to wait for it.
            return_dict: Whether to return an object with the attribute `last_hidden_state`, or a tuple.

        Returns:
            The context (B, M, hidden_size).

        Raises:
            InputError: If shape, dtype or ids are not as above.
        """
        longest, vocabulary = self.config["max_position_embeddings"], self.config["vocab_size"]
        if input_ids.ndim != 2 or input_ids.shape[1] > longest or input_ids.dtype not in (torch.int64, torch.int32):
            given = f"{input_ids.dtype} of shape {tuple(input_ids.shape)}"
            raise InputError(f"input_ids are {given}; give int64 (B, M) with M at most {longest}")
        if input_ids.device.type == "cpu" and not bool(((input_ids >= 0) & (input_ids < vocabulary)).all()):
            raise InputError(
                f"input_ids reach from {input_ids.min()} to {input_ids.max()}; allowed: 0 to {vocabulary - 1}"
            )
        context = self.model(input_ids)
        return TextEncoderOutput(last_hidden_state=context) if return_dict else (context,)

    @classmethod
    def from_config(
        cls, config: JSON | str | Path | None = None, return_unused_kwargs: bool = False, **kwargs: object
    ) -> Any:
        """Make an encoder from a configuration of this class or of diffusers' `LDMBertModel`."""
        from latentdiff.models.stock_config import translate_ldm_bert_config

        if isinstance(config, (str, Path)):  # diffusers' EMAModel.from_pretrained gives a folder
            config = cast(JSON, cls.load_config(config))
        if config is not None and config.get("model_type") == "ldmbert":
            config = translate_ldm_bert_config(config)
        return super().from_config(config, return_unused_kwargs=return_unused_kwargs, **kwargs)
