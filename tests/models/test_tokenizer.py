"""CLIP's tokenizer out of its merges alone: the ids that OpenAI's and OpenCLIP's own tokenizers give."""

import gzip

import pytest
from transformers import AutoTokenizer

from latentdiff.models.tokenizer import CLIP_MERGES, clip_tokenizer, clip_vocabulary, open_clip_tokenizer
from latentdiff.pipelines.prompts import tokenize

START, END = 49406, 49407
# As open_clip 3.3.0's SimpleTokenizer encodes them.
IDS = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A  Photo\tof a CAT!": [320, 1125, 539, 320, 2368, 256],
    "it's the dogs' 1234th C++ party, isn't it? (50%)": [
        *(585, 568, 518, 3255, 262, 272, 273, 274, 275, 640, 322, 19056, 1580, 267, 2923, 713, 585, 286, 263, 276),
        *(271, 16063),
    ],
    "naïve café Zürich": [1097, 35689, 563, 15304, 89, 6522, 4021],
    "東京 日本語": [48338, 21078, 361, 39121, 44353, 34002, 508],
    "😀 👩\u200d👩\u200d👧": [7334, 26304, 26304, 964, 356],
    "supercalifragilisticexpialidocious jekyll": [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466, 49405],
    "!!! ! wow!": [995, 256, 2781, 256],
}
KINDS = {clip_tokenizer: END, open_clip_tokenizer: 0}


def test_vocabulary():
    ids, merges = clip_vocabulary()
    assert (len(ids), len(merges)) == (49408, 48894)
    assert len(gzip.decompress(CLIP_MERGES.read_bytes()).splitlines()) == len(merges)
    known = {"!": 0, "!</w>": 256, "in": 512, "<|startoftext|>": START, "<|endoftext|>": END}
    assert {token: ids[token] for token in known} == known


@pytest.mark.thorough
@pytest.mark.parametrize(("make", "pad"), KINDS.items())
def test_known_ids_also_after_saving(tmp_path, make, pad):
    tokenizer = make()
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert (each.model_max_length, each.pad_token_id) == (77, pad)
        for text, ids in IDS.items():
            assert each(text)["input_ids"] == [START, *ids, END]
        assert tokenize(each, ["a cat!"], 8).tolist() == [[START, 320, 2368, 256, END, pad, pad, pad]]
        assert tokenize(each, [""], 4).tolist() == [[START, END, pad, pad]]
