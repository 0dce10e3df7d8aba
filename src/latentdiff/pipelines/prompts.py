"""From prompts to token ids: what can't be represented is an error, never left out in silence."""

from __future__ import annotations

import threading
import unicodedata
import warnings
from collections.abc import Sequence

import torch

from latentdiff.errors import ConfigError, InputError, LatentDiffWarning
from latentdiff.types import TextEncoder, Tokenizer

# A fast tokenizer keeps the padding of its last call, so that calls of several threads must not overlap.
_TOKENIZING = threading.Lock()


def check_prompt(prompt: object, *, name: str = "prompt", may_be_empty: bool = False) -> str:
    """Return `prompt`; InputError if it is no string, is empty, or holds what no tokenizer can read."""
    if not isinstance(prompt, str):
        raise InputError(f"{name} is {prompt!r}, a {type(prompt).__name__}; it must be a string or a list of strings")
    if not may_be_empty and not prompt.strip():
        raise InputError(f"{name} is empty; describe an image in words")
    for character in prompt:
        if unicodedata.category(character) in ("Cs", "Cn") or (
            unicodedata.category(character) == "Cc" and character not in "\t\n\r"
        ):
            raise InputError(f"{name} has the character U+{ord(character):04X}, which is no text; remove it")
    return prompt


def as_list(prompt: str | Sequence[str], *, name: str = "prompt", may_be_empty: bool = False) -> list[str]:
    """Make a checked list of one prompt or several; InputError if there is none or one isn't valid."""
    prompts = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
    if not prompts:
        raise InputError(f"{name} is an empty list; give at least one string")
    return [check_prompt(p, name=name, may_be_empty=may_be_empty) for p in prompts]


def tokenize(tokenizer: Tokenizer, prompts: list[str], max_length: int, *, truncate: bool = False) -> torch.Tensor:
    """Turn prompts into token ids (B, max_length), padded.

    Args:
        tokenizer: The text encoder's tokenizer.
        prompts: The prompts, B of them.
        max_length: How many tokens the text encoder takes, start and end included.
        truncate: Whether to leave out what is too long, and warn of it, rather than to raise.

    Raises:
        InputError: If a prompt has more tokens than the encoder takes (the message says what doesn't fit), or none of
            its words is in the vocabulary.
    """
    with _TOKENIZING:
        encoded = tokenizer(prompts, padding="max_length", max_length=max_length, truncation=False)["input_ids"]
    for place, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True)):
        if len(ids) > max_length:
            kept = max_length - tokenizer.num_special_tokens_to_add()
            with _TOKENIZING:
                rest = str(tokenizer.decode(tokenizer(prompt, add_special_tokens=False)["input_ids"][kept:])).strip()
            facts = f"prompt has {len(ids)} tokens, the text encoder takes {max_length}; {rest!r}"
            if not truncate:
                raise InputError(f"{facts} does not fit, shorten it or pass truncate_prompt=True")
            warnings.warn(f"{facts} is left out", LatentDiffWarning, stacklevel=2)
            with _TOKENIZING:
                encoded[place] = tokenizer(prompt, max_length=max_length, truncation=True)["input_ids"]
        words = set(ids) - set(tokenizer.all_special_ids)
        if prompt.strip() and not words and getattr(tokenizer, "unk_token_id", None) in ids:
            raise InputError(
                f"prompt {prompt!r} has no word that the model's vocabulary knows; use plain English words"
            )
    return torch.tensor(encoded)


def check_ids(ids: torch.Tensor, encoder: TextEncoder) -> torch.Tensor:
    """Return token ids (B, L) on the CPU that a text encoder has embeddings of.

    Raises:
        ConfigError: If it hasn't, as a tokenizer with more tokens is another model's.
    """
    known = getattr(encoder.config, "vocab_size", None)
    if isinstance(known, int) and ids.numel() and int(ids.max()) >= known:
        raise ConfigError(
            f"the tokenizer gives a token the number {int(ids.max())}, but the text encoder has {known} tokens; take "
            "the tokenizer of the same model"
        )
    return ids
