"""Captions (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from latentdiff.conditioning import Conditioning
from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.options import DataOptions
from latentdiff.data.views import View
from latentdiff.errors import BadFileError
from latentdiff.io.mapped import MappedArray
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.tokenizer import BERT_VOCABULARY, load_tokenizer
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.prompts import tokenize
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.captions import tokenize_captions
from latentdiff.training.diffusion.conditioners.base import Conditioner, build, section_value
from latentdiff.training.diffusion.conditioners.options import TextOptions
from latentdiff.training.diffusion.text_cache import cached_states, encode_ids
from latentdiff.types import FirstStage, Tokenizer


class TextConditioner(Conditioner[TextOptions]):
    """Conditions on captions; a dropped caption is the empty one.

    The text encoder is trained with the UNet, or its states are computed once and kept on disk.
    """

    options_class = TextOptions
    trains: tuple[str, ...] = ("text_encoder",)
    knows_null = True

    def prepare(self) -> None:
        """Tokenise the empty caption, and encode it if the encoder stays as it is."""
        trained = self.options.train_text_encoder
        self.empty = tokenize(self.pipeline.tokenizer, [""], self.pipeline.max_length)
        self.frozen = self.adapter if trained is None else not trained
        if self.frozen:
            self.trains = ()
            with torch.no_grad():
                self.empty_states = encode_ids(self.pipeline.text_encoder, self.empty)

    @classmethod
    def unet_options(cls, options: TextOptions, latent_channels: int) -> dict[str, int]:
        """The context is as wide as the text encoder's output."""
        return {"cross_attention_dim": section_value(options.text_encoder, LDMTextEncoder, "hidden_size")}

    @classmethod
    def components(cls, options: TextOptions, data: DataOptions, images: Images, vae: FirstStage) -> dict[str, object]:
        """A text encoder and the tokenizer of the vocabulary."""
        encoder = build(LDMTextEncoder, "conditioning.text_encoder", options.text_encoder)
        vocabulary, size = options.vocabulary or BERT_VOCABULARY, encoder.config.vocab_size
        tokenizer = load_tokenizer(vocabulary, encoder.config.max_position_embeddings)
        check(
            len(tokenizer) <= size,
            f"conditioning.text_encoder has vocab_size {size}, but {vocabulary} has {len(tokenizer)} tokens; "
            "let the sizes agree",
        )
        return {"text_encoder": encoder, "tokenizer": tokenizer}

    def rows(self, images: Images) -> Rows:
        """Rows of `input_ids` (L,), or `text_states` (L, d) where the encoder stays as it is.

        Of several captions of an image, another may come at every visit.
        """
        unfit = self.options.unfit_captions
        captions = tokenize_captions(images, self.pipeline.tokenizer, self.pipeline.max_length, unfit)
        counts, missing = torch.tensor(captions.counts), captions.missing
        if not self.frozen:
            return _Captions("input_ids", captions.ids, torch.arange(len(captions.ids)), counts, missing)
        unique, places = torch.unique(captions.ids, dim=0, return_inverse=True)
        states = cached_states(self.output_dir / "captions", self.pipeline.text_encoder, unique.long())
        return _Captions("text_states", states, places, counts, missing)

    def prompts(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """A batch of the given captions, as `rows` would give them."""
        return {"input_ids": tokenize(self.pipeline.tokenizer, prompts, self.pipeline.max_length)}

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The encoder's states of the captions, or of the empty one where they are dropped."""
        if "text_states" in batch:
            empty = self.empty_states.to(dropped.device)
            return Conditioning(torch.where(dropped[:, None, None], empty, batch["text_states"]))
        ids = torch.where(dropped[:, None], self.empty.to(dropped.device), batch["input_ids"])
        return Conditioning(encode_ids(self.pipeline.text_encoder, ids))


def text_limits(options: TextOptions, pretrained: str | None) -> tuple[Tokenizer, int]:
    """The tokenizer of a text model that is to be trained, and how many tokens its encoder takes.

    Args:
        options: The options of a new model.
        pretrained: The folder of the pipeline that is to be trained on, if there is one.
    """
    if pretrained is not None:
        pipeline = DiffusionPipeline.from_pretrained(pretrained)
        if pipeline.components.get("text_encoder") is not None:
            return pipeline.tokenizer, int(pipeline.text_encoder.config.max_position_embeddings)
    length = section_value(options.text_encoder, LDMTextEncoder, "max_position_embeddings")
    return load_tokenizer(options.vocabulary or BERT_VOCABULARY, length), length


class _Captions:
    """Draws one of an image's captions.

    A process that starts afresh is sent tensors by shared memory and states by the path of their file, and copies
    neither.

    Args:
        name: What a row is called.
        values: A row for each different caption: token ids, or states in a file.
        places: Which row is that of each caption, image after image (N,).
        counts: The number of captions of each image (B,).
        missing: Why an image has none, by its number.
    """

    def __init__(
        self,
        name: str,
        values: torch.Tensor | MappedArray[np.float16],
        places: torch.Tensor,
        counts: torch.Tensor,
        missing: dict[int, str],
    ) -> None:
        self.parts = (name, values, places, counts, missing)
        self.name, self.missing = name, missing
        self.dtype = np.int64 if isinstance(values, torch.Tensor) else np.float32
        self.values: NDArray[np.generic] = values.numpy() if isinstance(values, torch.Tensor) else values.rows
        self.places, self.counts, self.ends = places.numpy(), counts.numpy(), counts.cumsum(0).numpy()

    def __reduce__(self) -> tuple[type[_Captions], tuple[object, ...]]:
        return _Captions, self.parts

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        count = self.counts[image]
        if not count:
            raise BadFileError(self.missing[image])
        place = self.ends[image] - count + (rng.integers(count) if count > 1 else 0)
        return {self.name: torch.from_numpy(self.values[self.places[place]].astype(self.dtype))}
