"""Every task from the open page to a file, which the command line makes again byte for byte."""

import io
import json
import shlex
import zipfile

import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_models import MAKERS

from latentdiff.cli.main import main
from latentdiff.io.generated import read_parameters

pytestmark = [pytest.mark.browser, pytest.mark.thorough]

SHORT = "steps=4&seed=7"


@pytest.fixture
def again(server, tmp_path, monkeypatch):
    """Runs the page's command in a folder with what was drawn and the models; the bytes of the file."""
    for name in MAKERS:
        (tmp_path / name).symlink_to(server.models / name)
    monkeypatch.chdir(tmp_path)

    def run(page, inputs=()):
        for name, content in dict(inputs).items():
            (tmp_path / name).write_bytes(content)
        program, *words = shlex.split(page.locator("#viewer .command").inner_text())
        assert program == "latentdiff"
        assert main([*words[:1], "--output", "again.png", "--quiet", *words[1:]]) == 0
        return (tmp_path / "again.png").read_bytes()

    return run


def photo(width=40, height=32):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"name": "mine.png", "mimeType": "image/png", "buffer": stream.getvalue()}


def press(page):
    """Make an image, and wait for it."""
    before = page.locator("#viewer .history li").count()
    page.locator("#generate").click()
    page.locator("#viewer .history li").nth(before).wait_for()


def saved(page, label):
    with page.expect_download() as waited:
        page.get_by_role("link", name=label).click()
    return waited.value.suggested_filename, waited.value.path().read_bytes()


def drag(page, start, end):
    """Drag over the canvas, from and to places that are given as parts of its sides."""
    box = page.locator("#canvas canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


def test_a_prompt(pages, again):
    page = pages(f"?model=text&{SHORT}&guidance_scale=3")
    page.get_by_label("Prompt", exact=True).fill("a red apple")
    press(page)
    name, png = saved(page, "Download the image")
    assert name == "a-red-apple-seed7.png"
    assert again(page) == png
    asked = {"command": "generate", "prompt": "a red apple", "seed": 7, "steps": 4, "guidance_scale": 3.0}
    assert read_parameters("again.png") == {**read_parameters("again.png"), **asked}


def test_nothing_at_all(pages, again):
    page = pages(f"?model=unconditional&{SHORT}&scheduler=dpmpp_2m")
    assert page.get_by_label("Prompt", exact=True).count() == page.locator("#canvas canvas").count() == 0
    press(page)
    assert again(page) == saved(page, "Download the image")[1]
    assert read_parameters("again.png")["scheduler"] == "dpmpp_2m"


def test_a_class(pages, again):
    page = pages(f"?model=class&label=dog&{SHORT}&cache_interval=2")
    press(page)
    assert again(page) == saved(page, "Download the image")[1]
    assert (read_parameters("again.png")["label"], read_parameters("again.png")["cache_interval"]) == ("dog", 2)


def test_boxes(pages, again):
    page = pages(f"?model=layout&{SHORT}")
    for name, start, end in (("dog", (0.05, 0.05), (0.45, 0.7)), ("star", (0.9, 0.9), (0.55, 0.3))):
        page.locator("#canvas").get_by_label(name, exact=True).check()
        drag(page, start, end)
    press(page)
    name, layout = saved(page, "Download what was drawn")
    assert name == "layout.json"
    assert json.loads(layout) == {
        "width": 16,
        "height": 16,
        "objects": [{"class": "dog", "box": [0, 0, 8, 12]}, {"class": "star", "box": [8, 4, 7, 11]}],
    }
    assert again(page, {name: layout}) == saved(page, "Download the image")[1]


def test_a_label_map_of_the_palette_alone(pages, again):
    page = pages(f"?model=semantic&{SHORT}")
    canvas = page.locator("#canvas")
    canvas.get_by_label("Brush size").fill("2")
    for name, start, end in (("pear", (0.1, 0.1), (0.9, 0.5)), ("star", (0.2, 0.9), (0.7, 0.15))):
        canvas.get_by_label(name, exact=True).check()
        drag(page, start, end)
    canvas.get_by_label("Fill").check()
    canvas.get_by_label("dog", exact=True).check()
    drag(page, (0.95, 0.95), (0.95, 0.95))
    press(page)
    name, png = saved(page, "Download what was drawn")
    with Image.open(io.BytesIO(png)) as picture:
        numbers, colours = np.asarray(picture), np.asarray(picture.convert("RGB"))
    assert set(numbers.flat) == {0, 1, 2, 4}
    assert np.array_equal(colours, np.array(tiny.PALETTE)[numbers])
    shown = page.evaluate(PIXELS)
    assert {tuple(colour) for colour in shown} == {tiny.PALETTE[number] for number in (0, 1, 2, 4)}
    assert again(page, {name: png}) == saved(page, "Download the image")[1]


PIXELS = """() => {
  const canvas = document.querySelector("#canvas canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 3).join());
  return [...found].map((colour) => colour.split(",").map(Number));
}"""


def test_a_small_image(pages, again):
    page = pages(f"?model=super&{SHORT}")
    page.locator("#canvas input[type=file]").set_input_files(photo(width=8, height=6))
    page.wait_for_function("document.querySelector('#canvas canvas').width / 8 === 64")
    press(page)
    name, small = saved(page, "Download what was drawn")
    assert name == "photo.png"
    assert Image.open(io.BytesIO(small)).size == (8, 6)
    assert again(page, {name: small}) == saved(page, "Download the image")[1]
    slider = page.get_by_label("Before and after")
    slider.fill("30")
    assert page.locator("#viewer img.after").evaluate("image => image.style.clipPath") == "inset(0px 70% 0px 0px)"


def test_a_mask_on_a_photo(pages, again):
    page = pages(f"?model=inpaint&{SHORT}")
    page.locator("#canvas input[type=file]").set_input_files(photo())
    page.wait_for_function("document.querySelector('#canvas canvas').width / 16 === 32")
    page.locator("#canvas").get_by_label("Brush size").fill("0")
    drag(page, (0.2, 0.5), (0.8, 0.5))
    press(page)
    name, archive = saved(page, "Download what was drawn")
    assert name == "photo-seed7-inputs.zip"
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        inputs = {entry: opened.read(entry) for entry in opened.namelist()}
    mask = np.asarray(Image.open(io.BytesIO(inputs["mask.png"])))
    rows, columns = np.nonzero(mask)
    assert (mask.shape, set(mask.flat)) == ((13, 16), {0, 255})
    assert (set(rows), set(columns)) == ({6}, set(range(3, 13)))
    png = saved(page, "Download the image")[1]
    assert again(page, inputs) == png
    kept = np.asarray(Image.open(io.BytesIO(png))) == np.asarray(Image.open(io.BytesIO(inputs["photo.png"])))
    assert kept[mask == 0].all()
