"""A run that ends on the hub, with a card that says how the model was made."""

import io
import json

import pytest
import toy
import yaml
from loopback_hub import OWNER
from PIL import Image

from latentdiff import ConfigError, DiffusionPipeline, HubError

pytestmark = pytest.mark.thorough


def train(root, task="class-to-image", **options):
    data, vae = toy.write(root / "photographs"), toy.write_vae(root / "vae")
    held_out = toy.write(root / "held_out")
    values = {"push_to_hub": f"{OWNER}/trained", "validation.data_dir": str(held_out), **options}
    values |= {"validation.steps": 2, "logging_steps": 1, "max_train_steps": 4, "validation.inference_steps": 1}
    return toy.train(task, data, vae, root / "run", **{"validation.samples": 0, **values})


def published(hub):
    return hub.repos[f"{OWNER}/trained"].commits[-1][1]


def test_it_is_pushed_with_a_filled_card(hub, tmp_path):
    output = train(tmp_path, **{"validation.samples": 2})
    files = published(hub)
    card = files["README.md"].decode()
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    lowest = min(line["validation/loss"] for line in lines if "validation/loss" in line)
    assert f"| training loss | {losses[-1]:g} |" in card and f"| lowest loss of held-out images | {lowest:g} |" in card
    assert "**Trained on:** photographs" in card and "4 steps with this recipe" in card
    assert all(f"| {step} | {4 * step} | {loss:.4g} |" in card for step, loss in enumerate(losses, 1))
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["data"] == {"train_data_dir": "photographs", "resolution": toy.SIDE} and recipe["unet"] == toy.UNET
    assert recipe["optimizer"] == {"learning_rate": 2e-3} and recipe["conditioning"]["type"] == "class-to-image"
    sheets = [io.BytesIO(files["gallery/samples-4.png"]), output / "validation" / "samples-4.png"]
    assert len({Image.open(sheet).tobytes() for sheet in sheets}) == 1
    assert "![Samples at step 4](gallery/samples-4.png)" in card and "gallery/samples-2.png" not in files
    assert "random_flip" not in card and str(tmp_path) not in card
    assert not [path for path, content in files.items() if str(tmp_path).encode() in content]
    assert DiffusionPipeline.from_pretrained(f"{OWNER}/trained").class_embedder.config.class_names == sorted(
        toy.COLOURS
    )


@pytest.mark.parametrize(
    ("task", "options", "shown"),
    [
        ("inpaint", {"validation.samples": 2}, False),
        ("text-to-image", {"validation.samples": 2}, False),
        ("text-to-image", {"validation.prompts": ["a red apple"]}, True),
    ],
)
def test_samples_that_show_images_or_captions_of_the_data_stay_here(hub, tmp_path, task, options, shown):
    output = train(tmp_path, task, **options)
    assert (output / "validation" / "samples-4.png").is_file()
    assert any(path.startswith("gallery/") for path in published(hub)) == shown


def test_a_failed_upload_loses_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError):
        train(tmp_path)
    assert DiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"push_to_hub": True}, "push_to_hub is True; it must be text or null"),
        ({"lora": {"rank": 1}, "pretrained_model_name_or_path": "m"}, "push_to_hub uploads a pipeline, and lora"),
    ],
)
def test_bad_options_are_one_line(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, **options)
