"""Layouts as tokens: those of the original code, there and back, and in a pipeline's folder."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_unconditional

import latentdiff
from latentdiff import ConfigError, DiffusionPipeline, InputError, LayoutTokenizer
from latentdiff.models.layout_tokenizer import OBJECT_FLAGS

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "aux_layout_tokens.safetensors")
CASES = {
    "0": {"num_classes": 308, "flags": tuple(OBJECT_FLAGS), "num_tokens": 8192, "encode_crop": True},
    "1": {"num_classes": 100, "flags": (), "num_tokens": 1024, "encode_crop": False},
}
NAMES = ["cat", "dog", "tree", "crane", "crane"]


@pytest.fixture
def tokenizer():
    return LayoutTokenizer(class_names=NAMES)


def golden(case, part):
    return GOLDEN[f"{case}.{part}"]


@pytest.mark.parametrize("case", [f"{group}.{number}" for group in CASES for number in range(4)])
def test_tokens_are_the_originals(case):
    tokenizer = LayoutTokenizer(**CASES[case[0]])
    flags = golden(case, "flags").bool().tolist()
    objects = [
        {
            "class": number,
            "box": box,
            **{flag: set_ for flag, set_ in zip(OBJECT_FLAGS, row, strict=True) if tokenizer.flags},
        }
        for number, box, row in zip(golden(case, "class").tolist(), golden(case, "bbox").tolist(), flags, strict=True)
    ]
    ids = tokenizer(objects, crop=golden(case, "crop").tolist(), flip=bool(golden(case, "flip")))
    assert ids.dtype == torch.int64 and ids.shape == (1, tokenizer.length)
    assert torch.equal(ids[0], golden(case, "tokens"))
    boxes = torch.tensor([item["box"] for item in tokenizer.decode(ids)[0]], dtype=torch.float64)
    assert torch.allclose(boxes, golden(case, "inverse_bbox"), rtol=0, atol=1e-15)


def test_the_empty_layout_keeps_the_crop(tokenizer):
    """What guidance needs: the crop's tokens are those of the whole image."""
    for empty in ([], [[]]):
        assert tokenizer(empty).tolist() == [[8191] * 90 + [0, 8099]]
    assert tokenizer([[]] * 3).shape == (3, 92)


def test_there_and_back_within_half_a_cell(tokenizer):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 2, 2, dtype=torch.float64, generator=generator).sort(1).values
    boxes = torch.cat([corners[:, 0], corners[:, 1] - corners[:, 0]], 1)
    layouts = [
        [{"class": NAMES[(i + k) % 3], "box": box.tolist(), "group": k % 2 == 1} for k, box in enumerate(part)]
        for i, part in enumerate(boxes.split(20))
    ]
    for given, found in zip(layouts, tokenizer.decode(tokenizer(layouts)), strict=True):
        for a, b in zip(given, found, strict=True):
            assert b["class"] == a["class"] and b.get("group", False) == a["group"]
            (x, y, w, h), (u, v, r, s) = a["box"], b["box"]
            ends = [(x, u), (y, v), (x + w, u + r), (y + h, v + s)]
            assert max(abs(p - q) for p, q in ends) <= 0.5 / 89 + 1e-12


def test_box_formats_agree(tokenizer):
    relative = {"class": "cat", "box": (0.25, 0.5, 0.5, 0.25)}
    expected = tokenizer([relative])
    assert torch.equal(tokenizer([{"class": 0, "box": (0.25, 0.5, 0.75, 0.75)}], box_format="xyxy"), expected)
    assert torch.equal(tokenizer([{"class": 0, "box": [160, 240, 320, 120]}], image_size=(480, 640)), expected)
    pixels = torch.tensor([160, 240, 480, 360])
    assert torch.equal(tokenizer([{"class": 0, "box": pixels}], image_size=(480, 640), box_format="xyxy"), expected)
    crop = tokenizer([{"class": 0, "box": pixels}], image_size=(480, 640), box_format="xyxy", crop=(0, 0, 320, 480))
    assert torch.equal(crop, tokenizer([relative], crop=(0, 0, 0.5, 1)))


def test_crops_and_flips(tokenizer):
    inside, outside = {"class": 0, "box": (0.1, 0.1, 0.2, 0.2)}, {"class": 1, "box": (0.6, 0.6, 0.2, 0.2)}
    ids = tokenizer([inside, outside], crop=(0, 0, 0.5, 0.5))
    assert torch.equal(ids[0, :90], tokenizer([inside])[0, :90]) and ids[0, 90:].tolist() == [0, 44 * 90 + 44]
    flipped = tokenizer.decode(tokenizer([inside], flip=True))[0][0]["box"]
    assert flipped == pytest.approx((0.7, 0.1, 0.2, 0.2), abs=1 / 89)
    relative = LayoutTokenizer(class_names=NAMES, encode_crop=False)
    assert relative.length == 90
    found = relative.decode(relative([inside], crop=(0, 0, 0.5, 0.5)))[0][0]["box"]
    assert found == pytest.approx((0.2, 0.2, 0.4, 0.4), abs=1 / 89)


BOX = (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([{"class": "dgo", "box": BOX}], r"unknown class 'dgo'; did you mean 'dog'\?"),
        ([{"class": "crane", "box": BOX}], "is the name of classes 3 and 4"),
        ([{"class": 5, "box": BOX}], "class 5 is given; allowed: a name or a number from 0 to 4"),
        (
            [{"class": 0, "box": (0.5, 0, 0.6, 1)}],
            r"0 is \(0.5, 0, 0.6, 1\) as .* out of the image \(0 to 1;",
        ),
        ([{"class": 0, "box": (-0.1, 0, 0.6, 1)}], "box of object 0 of layout 0 .* out of the image"),
        ([{"class": 0, "box": (10, 10, 50, 50)}], "for boxes in pixels give image_size"),
        ([{"class": 0, "box": (0, 0, 0, 1)}], "empty or inverted"),
        ([{"class": 0, "box": (0.5, 0.5, -0.2, 0.2)}], "empty or inverted"),
        ([{"class": 0, "box": (0, float("nan"), 1, 1)}], r"four finite numbers \(x, y, width, height\)"),
        ([{"class": 0, "box": (0, 0, 1)}], "four finite numbers"),
        ([{"class": 0, "box": "0011"}], "four finite numbers"),
        ([{"class": 0, "box": None}], "four finite numbers"),
        ([{"class": 0}], "object 0 of layout 0 has no 'box'"),
        ([{"box": BOX}], "has no 'class'"),
        ([{"class": 0, "bbox": BOX}], r"object 0 of layout 0 has 'bbox'; did you mean 'box'\?"),
        ([{"class": 0, "box": BOX, "occluded": True}], "flag 'occluded', which this model doesn't know"),
        ([{"class": 0, "box": BOX, "group": "yes"}], "'yes' as 'group'; give True or False"),
        ([[], [{"class": 0, "box": BOX}] * 31], "layout 1 has 31 objects, the model takes 30; leave 1 out"),
        ({"class": 0, "box": BOX}, "layouts are a dict; give a list of objects"),
        ("cat", "layouts are a str"),
        ([[], {"class": 0, "box": BOX}], "layouts are a list; give a list of objects"),
        ([["cat"]], "layouts are a list"),
    ],
)
def test_bad_layouts(tokenizer, layout, message):
    with pytest.raises(InputError, match=message):
        tokenizer(layout)


def test_bad_options(tokenizer):
    objects = [{"class": 0, "box": BOX}]
    with pytest.raises(InputError, match=r"box_format is 'xxyy'; did you mean 'xyxy'"):
        tokenizer(objects, box_format="xxyy")
    for size in (640, (640,), (0, 5), (1.5, 2), "ab"):
        with pytest.raises(InputError, match=r"image_size is .* give the image's height and width"):
            tokenizer(objects, image_size=size)
    with pytest.raises(InputError, match=r"out of the image \(640x480 pixels\); clip it"):
        tokenizer([{"class": 0, "box": (0, 0, 641, 480)}], image_size=(480, 640))
    with pytest.raises(InputError, match=r"crop is .* empty or inverted"):
        tokenizer(objects, crop=(0, 0, 0, 0))


def test_rounded_annotations_are_no_error(tokenizer):
    """COCO rounds to a hundredth of a pixel, so that a box may end a little outside."""
    found = tokenizer([{"class": 0, "box": (0.01, 0, 640, 480)}], image_size=(480, 640))
    assert torch.equal(found, tokenizer([{"class": 0, "box": BOX}]))


def test_bad_ids(tokenizer):
    with pytest.raises(InputError, match=r"give int64 \(B, 92\)"):
        tokenizer.decode(torch.zeros(1, 90, dtype=torch.int64))
    for place, value in ((0, 10), (0, -1), (1, 8100), (2, 8191)):
        ids = tokenizer([{"class": 0, "box": BOX}])
        ids[0, place] = value
        with pytest.raises(InputError, match="are not an object of this model"):
            tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "num_classes is None"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_classes": 3, "class_names": NAMES}, "class_names has 5 names for 3 classes"),
        (
            {"num_classes": 600, "flags": tuple(OBJECT_FLAGS)},
            "num_tokens is 8192; 600 classes with these flags need 9601",
        ),
        ({"num_classes": 5, "flags": ("grup",)}, r"unknown flag 'grup'; did you mean 'group'\?"),
        ({"num_classes": 1, "num_tokens": 3}, "num_tokens is 3"),
        ({"num_classes": 1, "max_objects": -1}, "max_objects is -1"),
    ],
)
def test_bad_configurations(config, message):
    with pytest.raises(ConfigError, match=message):
        LayoutTokenizer(**config)


def test_round_trip_alone(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    again = LayoutTokenizer.from_pretrained(tmp_path)
    layout = [{"class": "dog", "box": (0.1, 0.2, 0.3, 0.4), "group": True}]
    assert torch.equal(again(layout), tokenizer(layout)) and again.decode(again(layout)) == tokenizer.decode(
        tokenizer(layout)
    )
    assert again.config["num_classes"] == 5


class PipelineWithLayouts(latentdiff.UnconditionalPipeline):
    """Has the component that is under test beside the usual ones."""

    def __init__(self, vae: torch.nn.Module, unet: torch.nn.Module, scheduler: object, tokenizer: LayoutTokenizer):
        super().__init__(vae, unet, scheduler)
        self.register_modules(tokenizer=tokenizer)


def test_round_trip_in_a_pipelines_folder(tmp_path, tokenizer):
    parts = DiffusionPipeline.from_pretrained(tiny_unconditional(tmp_path)).components
    PipelineWithLayouts(**parts, tokenizer=tokenizer).save_pretrained(tmp_path / "layouts")
    index = json.loads((tmp_path / "layouts" / "model_index.json").read_text())
    assert index["tokenizer"] == ["latentdiff", "LayoutTokenizer"]
    again = PipelineWithLayouts.from_pretrained(tmp_path / "layouts")
    layout = [{"class": "dog", "box": (0.1, 0.2, 0.3, 0.4)}]
    assert type(again.tokenizer) is LayoutTokenizer and torch.equal(again.tokenizer(layout), tokenizer(layout))
    again.save_pretrained(tmp_path / "layouts")
    text = (tmp_path / "layouts" / "tokenizer" / "tokenizer_config.json").read_text()
    assert str(tmp_path) not in text and json.loads(text)["class_names"] == NAMES
