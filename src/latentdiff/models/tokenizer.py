"""The tokenizers of the text encoders: BERT's WordPiece for LDMs, CLIP's byte-pair encoding for Stable Diffusion."""

from __future__ import annotations

import gzip
import importlib.resources
from pathlib import Path

from transformers import BertTokenizerFast, CLIPTokenizer

from latentdiff.errors import CheckpointError
from latentdiff.reading import read_text

DATA = Path(str(importlib.resources.files("latentdiff"))) / "builtin"
BERT_VOCABULARY = DATA / "bert-base-uncased" / "vocab.txt"
CLIP_MERGES = DATA / "clip" / "merges.txt.gz"
CLIP_LENGTH = 77
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"


def load_tokenizer(vocabulary: str | Path, max_length: int) -> BertTokenizerFast:
    """A lower-casing WordPiece tokenizer.

    Args:
        vocabulary: A `vocab.txt` with one token a line; the number of the line is the token's id.
        max_length: Number of tokens in a prompt, including [CLS] and [SEP].

    Raises:
        CheckpointError: If the file can't be read or lacks a special token.
    """
    try:
        tokens = read_text(vocabulary).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{vocabulary} cannot be read as a vocabulary ({error}); give a vocab.txt") from None
    ids = {token: number for number, token in enumerate(tokens)}
    for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
        if token not in ids:
            raise CheckpointError(f"{vocabulary} lacks the token {token}; give a WordPiece vocab.txt")
    return BertTokenizerFast(vocab=ids, model_max_length=max_length)


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer, as Stable Diffusion 1.x uses it: prompts are padded with the end token."""
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH)


def open_clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer as OpenCLIP and Stable Diffusion 2.x use it: prompts are padded with id 0.

    Id 0 is the token "!" within a word; an exclamation mark in a prompt has another id. `split_special_tokens` keeps
    the tokenizer from taking exclamation marks in prompts for the padding token.
    """
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH, pad_token="!", split_special_tokens=True
    )


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's 49408 tokens with their ids, and its 48894 merges.

    The tokens are, in this order: the bytes, the bytes at the end of a word, the merges, the start and the end token.
    """
    lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(first, second) for first, second in map(str.split, lines)]
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, merges), CLIP_START, CLIP_END]
    return {token: number for number, token in enumerate(tokens)}, merges


def byte_symbols() -> list[str]:
    """GPT-2's visible character for each of the 256 bytes: first the bytes that are visible, as themselves."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in (*visible, *range(256, 512 - len(visible)))]
