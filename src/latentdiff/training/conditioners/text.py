"""Captions (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.data.folder import ImageFolder
from latentdiff.data.latent_cache import Columns, Rows
from latentdiff.errors import ConfigError, InputError
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.tokenizer import load_tokenizer
from latentdiff.pipelines.prompts import tokenize
from latentdiff.seeding import Draws
from latentdiff.training.conditioners.base import Conditioner, build, section_value
from latentdiff.training.recipes import DiffusionRecipe


class TextConditioner(Conditioner):
    """The text encoder is trained with the UNet; a dropped caption is the empty one."""

    trains = ("text_encoder",)
    options = ("text_encoder", "vocabulary", "caption_dropout", "validation_prompts")
    dropout = 0.1

    def __init__(self, pipeline: Any, recipe: DiffusionRecipe) -> None:
        super().__init__(pipeline, recipe)
        self.empty = tokenize(pipeline.tokenizer, [""], pipeline.max_length)

    @classmethod
    def unet_options(cls, recipe: DiffusionRecipe, latent_channels: int) -> dict[str, Any]:
        """The context's width."""
        return {"cross_attention_dim": section_value(recipe.text_encoder, LDMTextEncoder, "hidden_size")}

    @classmethod
    def components(cls, recipe: DiffusionRecipe, images: ImageFolder, vae: Any) -> dict[str, Any]:
        """A text encoder and the tokenizer of the vocabulary."""
        if recipe.vocabulary is None:
            raise ConfigError("vocabulary is missing; a text encoder needs a WordPiece vocab.txt")
        encoder = build(LDMTextEncoder, "text_encoder", recipe.text_encoder)
        tokenizer = load_tokenizer(recipe.vocabulary, encoder.config.max_position_embeddings)
        return {"text_encoder": encoder, "tokenizer": tokenizer}

    def rows(self, images: ImageFolder) -> Rows:
        """Token ids (L,) of the captions."""
        if images.captions is None:
            raise InputError(
                f"{images.root} has no metadata.jsonl with 'text'; a text-conditional model needs captions"
            )
        return Columns(input_ids=self.prompts(images.captions)["input_ids"].to(torch.int32))

    def prompts(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """A batch of the given captions."""
        return {"input_ids": tokenize(self.pipeline.tokenizer, prompts, self.pipeline.max_length)}

    def __call__(self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: Draws) -> Conditioning:
        """See `Conditioner`."""
        ids = torch.where(dropped[:, None], self.empty.to(dropped.device), batch["input_ids"])
        return Conditioning(self.pipeline.text_encoder(ids).last_hidden_state)
