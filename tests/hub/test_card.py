"""The model card: what the hub reads of it, what people read, and that its snippet runs."""

import re

import pytest
from huggingface_hub import ModelCard
from tiny import text_to_image, unconditional

from latentdiff import DiffusionPipeline
from latentdiff.hub.card import model_card


def test_metadata(tmp_path):
    card = model_card(
        text_to_image(tmp_path),
        repo_id="owner/apples",
        license="Apache-2.0",
        dataset="owner/fruit",
        metrics={"fid": 12.345678, "clip": 0.25},
        description="Draws fruit.",
    )
    again = ModelCard(str(card)).data.to_dict()
    assert again["library_name"] == "latentdiff" and again["pipeline_tag"] == "text-to-image"
    assert again["license"] == "apache-2.0" and again["datasets"] == ["owner/fruit"]
    assert again["metrics"] == ["fid", "clip"] and "latent-diffusion" in again["tags"]
    (model,) = again["model-index"]
    (result,) = model["results"]
    assert model["name"] == "apples" and result["task"] == {"type": "text-to-image"}
    assert result["dataset"] == {"type": "owner/fruit", "name": "owner/fruit"}
    assert result["metrics"] == [{"type": "fid", "value": 12.345678}, {"type": "clip", "value": 0.25}]
    assert "# apples" in card.text and "Draws fruit." in card.text
    assert "| fid | 12.3457 |" in card.text and "| clip | 0.25 |" in card.text
    assert re.search(r"\| unet \| `UNet2DConditionModel` \| [\d,]+ \|", card.text)


def test_what_is_not_known_is_left_out(tmp_path):
    card = model_card(unconditional(tmp_path), dataset="ten thousand drawings")
    data = ModelCard(str(card)).data.to_dict()
    assert data["pipeline_tag"] == "unconditional-image-generation"
    assert not {"license", "metrics", "datasets"} & data.keys()
    assert (
        "ten thousand drawings" in card.text
        and "## Metrics" not in card.text
        and "**Licence:** not stated" in card.text
    )


@pytest.mark.parametrize("dataset", ["photographs", "ten thousand drawings", None])
def test_metrics_are_no_results_on_the_hub_without_a_data_set_of_it(tmp_path, dataset):
    """The name of a folder looks like one of a data set, but a link to it would lead nowhere."""
    card = model_card(unconditional(tmp_path), dataset=dataset, metrics={"fid": 12.3})
    data = ModelCard(str(card)).data.to_dict()
    assert data["metrics"] == ["fid"] and not {"model-index", "datasets"} & data.keys()
    assert "| fid | 12.3 |" in card.text and f"**Trained on:** {dataset or 'not stated'}\n" in card.text


def test_texts_are_no_templates(tmp_path):
    card = model_card(unconditional(tmp_path), description="{{ title }} {% if %} & <b>", dataset="{{ 1 + 1 }}")
    assert "{{ title }} {% if %} & <b>" in card.text and "{{ 1 + 1 }}" in card.text
    assert str(card).endswith("|\n") and "\n\n\n" not in str(card)


@pytest.mark.thorough
@pytest.mark.parametrize("make", [text_to_image, unconditional])
def test_snippet_runs(tmp_path, monkeypatch, make):
    make(tmp_path).save_pretrained(tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path / "model")
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})
    assert (tmp_path / "model" / "image.png").is_file()


def test_prompt_and_place_are_quoted(tmp_path):
    pipe = text_to_image(tmp_path)
    card = model_card(pipe, repo_id="owner/name", subfolder="small", prompt='a "big" cat\'s star')
    assert r'pipe("a \"big\" cat' + "'s star" in card.text
    assert 'from_pretrained("owner/name", subfolder="small")' in card.text


@pytest.mark.thorough
def test_card_on_the_hub_stays_unless_one_is_given(hub, tmp_path):
    pipe = text_to_image(tmp_path)
    pipe.push_to_hub("tester/tiny")
    files = hub.repos["tester/tiny"].commits[-1][1]
    assert b'from_pretrained("tester/tiny")' in files["README.md"]
    files["README.md"] = b"written by hand"
    pipe.push_to_hub("tester/tiny", variant="ema")
    assert hub.repos["tester/tiny"].commits[-1][1]["README.md"] == b"written by hand"
    pipe.push_to_hub("tester/tiny", card=model_card(pipe, license="mit"))
    assert b"license: mit" in hub.repos["tester/tiny"].commits[-1][1]["README.md"]
    DiffusionPipeline.from_pretrained("tester/tiny", variant="ema")
