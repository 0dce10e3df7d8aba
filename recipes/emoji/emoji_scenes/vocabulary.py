"""The model's WordPiece vocabulary."""

import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import normalizers, pre_tokenizers

from .catalogue import Item

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation


def build(texts: Iterable[str], items: dict[str, Item], size: int = 4000) -> list[str]:
    """A lower-case BERT vocabulary in which every English word can be spelt.

    The words of the data become whole tokens, the most frequent first, and any other word is spelt from the longest
    known beginning and single letters ("apples" is ``apple ##s``). The WordPiece trainer of `tokenizers` would add
    pieces of words, but it breaks ties at random, so that no two runs agree on the ids.

    Args:
        texts: Captions.
        items: The catalogue, all of whose names, synonyms and keywords count as seen once more.
        size: The largest number of tokens.

    Returns:
        The tokens in the order of their ids: special ones, characters as first and as later pieces, then words.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    names = [" ".join((item.name, *item.synonyms, *item.keywords)) for item in items.values()]
    counts: Counter[str] = Counter()
    for text in (*texts, *names):
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    return [*SPECIAL, *CHARACTERS, *(f"##{char}" for char in CHARACTERS), *words][:size]


def write(tokens: list[str], path: Path) -> None:
    """Writes the vocabulary in BERT's format, one token a line."""
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
