"""The WordPiece vocabulary of the emoji recipe."""

import numpy as np
import pytest
from emoji_scenes import catalogue, grammar, vocabulary
from emoji_scenes.captions import caption
from transformers import BertTokenizerFast

ITEMS = catalogue.load()


@pytest.fixture(scope="module")
def captions() -> list[str]:
    scenes = [grammar.sample(ITEMS, 0, index) for index in range(1500)]
    return [caption(scene, ITEMS, np.random.default_rng((0, i, 1))) for i, scene in enumerate(scenes)]


@pytest.fixture(scope="module")
def tokenizer(captions, tmp_path_factory) -> BertTokenizerFast:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write(vocabulary.build(captions, ITEMS, 3000), path)
    return BertTokenizerFast(vocab=str(path), do_lower_case=True)


def test_special_tokens_come_first(tokenizer):
    ids = tokenizer.convert_tokens_to_ids(vocabulary.SPECIAL)
    assert ids == [0, 1, 2, 3, 4]
    assert len(tokenizer) <= 3000


def test_captions_fit_the_context_without_unknown_tokens(tokenizer, captions):
    ids = tokenizer(captions)["input_ids"]
    assert max(map(len, ids)) <= 32
    assert all(tokenizer.unk_token_id not in row for row in ids)


def test_any_english_word_can_be_spelt(tokenizer):
    text = 'Zyxwvut QUICK 0123456789, jumps-over; "lazy" (dogs)! #1 @ 50% & $3.50 + 2*3 / 4: why? it\'s'
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_ids_are_the_same_in_every_run(captions):
    tokens = vocabulary.build(captions, ITEMS)
    assert tokens == vocabulary.build(captions[::-1], ITEMS)
    assert len(set(tokens)) == len(tokens)
    assert {"background", "left", "red"} < set(tokens[:200])


def test_other_forms_of_known_words_share_their_token(tokenizer):
    assert tokenizer.tokenize("apples") == ["apple", "##s"]
