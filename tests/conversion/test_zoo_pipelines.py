"""What `from_original` makes of every family: its pipeline, tokenizer included, or one line that says what it can't."""

import pytest
import torch
from twins import Twin, narrow_clip

from latentdiff import DiffusionPipeline, LayoutTokenizer
from latentdiff.conversion import networks
from latentdiff.conversion.convert import convert_original
from latentdiff.conversion.zoo import ZOO_FIRST_STAGES, ZOO_MODELS
from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.tasks import TASKS

pytestmark = pytest.mark.thorough

PADDING = {"sd-1": 49407, "sd-2-base": 0, "sd-2-v": 0}


@pytest.fixture(params=PADDING)
def twin(request, monkeypatch):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip))
    return Twin(request.param), PADDING[request.param]


def images(pipe):
    pipe.set_progress_bar_config(disable=True)
    options = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 0, "output_type": "pt"}
    return pipe("a photo of a cat!", **options).images


def test_pipeline_without_a_given_tokenizer(tmp_path, twin):
    twin, pad = twin
    pipe = DiffusionPipeline.from_original(twin.state, twin.node)
    assert type(pipe).__name__ == "TextToImagePipeline"
    expected = "v_prediction" if "parameterization" in twin.node["params"] else "epsilon"
    assert pipe.scheduler.config.prediction_type == expected
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368, 256, 49407, *[pad] * 69]])
    with torch.no_grad():
        context = pipe.text_encoder(ids).last_hidden_state
    assert torch.equal(pipe.encode_prompt("a photo of a cat!"), context)
    convert_original(twin.state, tmp_path / "folder", twin.node)
    again = DiffusionPipeline.from_pretrained(tmp_path / "folder")
    # Where weights lie in memory decides how products are summed, so the same weights give almost the same numbers.
    torch.testing.assert_close(images(again), images(pipe), rtol=0.0, atol=1e-5)


# What checkpoints lack and the package can't know; of the twins' toy vocabularies, text models lack it, too.
LACKING = {
    "text2img256": "no tokenizer is in",
    "txt2img-1p4B": "no tokenizer is in",
    "layout2img-openimages256": "no tokenizer is in",
    "rdm768": "holds a model for retrieval-augmented, DiffusionPipeline takes class-to-image, ",
}


@pytest.mark.parametrize("name", [*ZOO_FIRST_STAGES, *ZOO_MODELS])
def test_every_family_makes_its_pipeline_or_says_why_not(monkeypatch, tmp_path, name):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip, vocab_size=60))
    twin = Twin(name)
    torch.save(twin.state, tmp_path / "model.ckpt")
    reason = "holds a first stage alone" if name in ZOO_FIRST_STAGES else LACKING.get(name)
    if reason is None:
        pipe = DiffusionPipeline.from_original(tmp_path / "model.ckpt", twin.node)
        assert type(pipe).__name__ == TASKS[twin.plan.task].pipeline_class
        return
    with pytest.raises(ConfigError, match=reason) as caught:
        DiffusionPipeline.from_original(tmp_path / "model.ckpt", twin.node)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_asks_for_it(tmp_path):
    twin = Twin("layout2img-openimages256")
    opened = convert_original(twin.state, tmp_path / "folder", twin.node)
    assert "No tokenizer is in a checkpoint, and the package has none for a vocabulary of 60 tokens" in opened.notes[-1]
    with pytest.raises(
        CheckpointError, match=r"has no tokenizer, which LayoutToImagePipeline needs; give it"
    ) as caught:
        DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert "\n" not in str(caught.value)
    tokenizer = LayoutTokenizer(num_classes=3, num_tokens=60)
    assert DiffusionPipeline.from_pretrained(tmp_path / "folder", tokenizer=tokenizer).tokenizer is tokenizer
    convert_original(twin.state, tmp_path / "whole", twin.node, tokenizer=tokenizer)
    assert DiffusionPipeline.from_pretrained(tmp_path / "whole").tokenizer.config.num_classes == 3
