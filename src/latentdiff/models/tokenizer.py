"""The WordPiece tokenizer of the LDM text transformer."""

from __future__ import annotations

from pathlib import Path

from transformers import BertTokenizerFast

from latentdiff.errors import CheckpointError


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
