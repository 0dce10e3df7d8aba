"""Trains the model's WordPiece vocabulary."""

import string
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from .catalogue import Item

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = string.ascii_lowercase + string.digits + "!\"#$%&'()*+,-./:;?@"


def train(texts: Iterable[str], items: dict[str, Item], size: int = 4000) -> list[str]:
    """A lower-case BERT vocabulary in which every English word can be spelt.

    Args:
        texts: Captions.
        items: The catalogue, all of whose names, synonyms and keywords are learnt from besides.
        size: The largest number of tokens.

    Returns:
        The tokens in the order of their ids: the special ones, all characters as first and as later pieces, then words.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = [" ".join((item.name, *item.synonyms, *item.keywords)) for item in items.values()]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([*texts, *words], trainer)
    learnt = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    fixed = [*SPECIAL, *CHARACTERS, *(f"##{char}" for char in CHARACTERS)]
    rest = [token for token, _ in learnt if token not in fixed]
    return (fixed + rest)[:size]


def write(tokens: list[str], path: Path) -> None:
    """Writes the vocabulary in BERT's format, one token a line."""
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
