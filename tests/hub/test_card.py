"""The model card: what the hub reads of it, what people read, and that its snippet runs."""

import re

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from tiny import text_to_image, unconditional

from latentdiff import DiffusionPipeline, InputError
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


COLOURS = {"a red apple": "red", "a green | _pear_\nin [one] <line>": "green"}


def test_a_gallery_lies_beside_the_card(tmp_path):
    gallery = {caption: Image.new("RGB", (8, 8), colour) for caption, colour in COLOURS.items()}
    card = model_card(text_to_image(tmp_path), gallery=gallery)
    card.save(tmp_path / "card" / "README.md")
    again = ModelCard.load(tmp_path / "card" / "README.md")
    places = ["gallery/1.png", "gallery/2.png"]
    assert again.data.widget == [
        {"text": caption, "output": {"url": place}} for caption, place in zip(gallery, places, strict=True)
    ]
    rows = re.findall(r"^\| !\[\]\((.*)\) \| (.*) \|$", again.text, re.MULTILINE)
    assert rows == [(places[0], "a red apple"), (places[1], r"a green \| \_pear\_ in \[one\] \<line\>")]
    for place, colour in zip(places, COLOURS.values(), strict=True):
        shown = Image.open(tmp_path / "card" / place)
        assert list(shown.getdata()) == list(Image.new("RGB", (8, 8), colour).getdata())


def test_without_a_gallery_the_page_offers_the_prompt_of_a_model_that_takes_some(tmp_path):
    card = model_card(text_to_image(tmp_path), prompt="a star", gallery={})
    assert card.data.widget == [{"text": "a star"}] and "## Gallery" not in card.text and not card.pictures
    assert "widget" not in model_card(unconditional(tmp_path)).data.to_dict()


@pytest.mark.parametrize("gallery", [{"a pear": "pear.png"}, {1: Image.new("RGB", (8, 8))}, {"a pear": None}])
def test_a_gallery_of_other_things_is_refused(tmp_path, gallery):
    with pytest.raises(InputError, match="give captions and Pillow images") as caught:
        model_card(unconditional(tmp_path), gallery=gallery)
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
def test_a_gallery_is_published(hub, tmp_path):
    pipe = text_to_image(tmp_path)
    card = model_card(pipe, gallery={"a red apple": Image.new("RGB", (8, 8), "red")})
    pipe.push_to_hub("tester/tiny", card=card)
    files = hub.repos["tester/tiny"].commits[-1][1]
    assert files["gallery/1.png"].startswith(b"\x89PNG") and b"url: gallery/1.png" in files["README.md"]
    assert DiffusionPipeline.from_pretrained("tester/tiny")


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
