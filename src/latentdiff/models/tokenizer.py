"""The tokenizers of the text encoders: WordPiece of BERT for LDMs, byte pairs of CLIP for Stable Diffusion."""

from __future__ import annotations

import gzip
import importlib.resources
from pathlib import Path

from transformers import BertTokenizerFast, CLIPTokenizer

from latentdiff.errors import CheckpointError

DATA = Path(str(importlib.resources.files("latentdiff"))) / "builtin"
BERT_VOCABULARY = DATA / "bert-base-uncased" / "vocab.txt"
CLIP_MERGES = DATA / "clip" / "merges.txt.gz"
CLIP_LENGTH = 77
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"


def load_tokenizer(vocabulary: str | Path, max_length: int) -> BertTokenizerFast:
    """A lower-casing WordPiece tokenizer.

    Args:
        vocabulary: `vocab.txt`, one token a line, its line number the id.
        max_length: Tokens of a prompt, [CLS] and [SEP] included.

    Raises:
        CheckpointError: If the file can't be read or lacks a special token.
    """
    try:
        tokens = Path(vocabulary).read_text(encoding="utf-8").splitlines()
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
    """The same tokenizer as OpenCLIP and so Stable Diffusion 2.x use it: prompts are padded with id 0.

    That id is "!" in the middle of a word. As a padding token it must not be looked for in prompts, where an
    exclamation mark is another id: hence `split_special_tokens`.
    """
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=CLIP_LENGTH, pad_token="!", split_special_tokens=True
    )


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's 49408 tokens and 48894 merges, of which they follow: bytes, bytes that end a word, merges, start, end."""
    lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    merges = [(first, second) for first, second in map(str.split, lines)]
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *map("".join, merges), CLIP_START, CLIP_END]
    return {token: number for number, token in enumerate(tokens)}, merges


def byte_symbols() -> list[str]:
    """A visible character for each of the 256 bytes, in the order of GPT-2: first the visible ones as themselves."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in (*visible, *range(256, 512 - len(visible)))]
