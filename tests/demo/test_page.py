"""What goes on around the images: cancelling, closing, waiting, uploads, links, history, keyboard and touch."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_tasks import drag, photo, press, saved
from tiny_models import SLOW

pytestmark = [pytest.mark.browser, pytest.mark.thorough]

LONG = f"?model={SLOW}&prompt=a+red+apple&steps=250&seed=1"
SHORT = "?model=unconditional&steps=2&seed=7"


def huge_png(width, height):
    """A PNG of one colour, whose pixels would take gigabytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pack = zlib.compressobj(9)
    rows = pack.compress(bytes(height * (1 + (width + 7) // 8))) + pack.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def begin(page):
    """Start a long run, and wait until it is under way."""
    page.locator("#generate").click()
    page.locator("#viewer img.preview").wait_for()


def test_previews_and_cancel(pages):
    page = pages(LONG)
    begin(page)
    assert page.locator("#viewer progress").evaluate("bar => bar.max") == 250
    page.locator("#cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    assert page.locator("#viewer img").count() == 0
    other = pages(SHORT)
    press(other)  # which had to wait for 250 steps otherwise
    page.locator("#generate").click()
    page.locator("#viewer img.preview").wait_for()
    page.locator("#cancel").click()
    page.get_by_text("Cancelled.").wait_for()


def test_a_browser_that_is_closed_frees_the_worker(pages):
    page, other = pages(LONG), pages(SHORT)
    begin(page)
    other.locator("#generate").click()
    other.get_by_text("Waiting; 1 before you.").wait_for()
    page.close()
    other.get_by_text("Done, seed 7.").wait_for()


def test_two_people_at_once_get_their_own_images(pages):
    both = [pages(f"?model={SLOW}&prompt=a+red+apple&steps=8&seed={seed}") for seed in (1, 2)]
    for page in both:
        page.locator("#generate").click()
    made = []
    for seed, page in enumerate(both, 1):
        page.get_by_text(f"Done, seed {seed}.").wait_for()
        made.append(saved(page, "Download the image"))
    assert [name for name, _ in made] == ["a-red-apple-seed1.png", "a-red-apple-seed2.png"]
    press(both[0])
    assert saved(both[0], "Download the image") == made[0]
    assert made[0][1] != made[1][1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (huge_png(10_000, 10_000), "The picture has 100 megapixels; at most 50 are read."),
        (huge_png(20_000, 10_000), "megapixels; at most 50 are read."),
        (b"no picture at all", "This is no picture that can be read"),
        (photo()["buffer"][:100], "This is no picture that can be read"),
    ],
    ids=["100 megapixels", "a bomb", "a text", "half a picture"],
)
def test_uploads_that_are_refused(pages, content, message):
    page = pages("?model=super")
    chosen = page.locator("#canvas input[type=file]")
    chosen.set_input_files({"name": "it.png", "mimeType": "image/png", "buffer": content})
    page.locator("#canvas").get_by_text(message).wait_for()
    page.locator("#generate").click()
    page.get_by_text("Open a small image first.").wait_for()
    chosen.set_input_files(photo(width=4, height=4))
    page.wait_for_function("document.querySelector('#canvas .fault').textContent === ''")
    press(page)


def test_an_upload_of_too_many_bytes_is_not_even_sent(pages):
    page = pages("?model=super")
    page.evaluate("""() => {
      const list = new DataTransfer();
      list.items.add(new File([new Uint8Array(41e6)], "it.png", { type: "image/png" }));
      const input = document.querySelector("#canvas input[type=file]");
      input.files = list.files;
      input.dispatchEvent(new Event("change"));
    }""")
    page.locator("#canvas").get_by_text("more than 40 MB").wait_for()


def test_nothing_drawn_is_said(pages):
    for model, message in (
        ("inpaint", "Open a photo, and paint over what is to be made anew."),
        ("layout", "Draw a box for each object first"),
        ("text", "prompt"),
    ):
        page = pages(f"?model={model}")
        page.locator("#generate").click()
        page.locator("#viewer .status.fault").get_by_text(message).wait_for()


def test_a_link_restores_settings_and_drawing(pages):
    page = pages("?model=inpaint&steps=3&seed=5&scheduler=euler")
    page.locator("#canvas input[type=file]").set_input_files(photo())
    page.wait_for_function("document.querySelector('#canvas canvas').width / 16 === 32")
    drag(page, (0.3, 0.3), (0.6, 0.6))
    press(page)
    made = saved(page, "Download the image")
    assert "drawing=" in page.url
    other = pages(page.url.partition("/?")[2].join(["?", ""]))
    other.wait_for_function("document.querySelector('#canvas canvas').height / 13 === 32")
    assert other.get_by_label("Seed", exact=True).input_value() == "5"
    press(other)
    assert saved(other, "Download the image") == made
    gone = pages("?model=inpaint&drawing=nothing")
    gone.get_by_text("The drawing of this link is kept here no longer").wait_for()


def test_a_link_with_faults(pages):
    page = pages("?model=builtin:nothing&steps=0&seed=3&scheduler=fast&guidance_scale=nan&theme=x")
    status = page.locator("#viewer .status").inner_text()
    assert "builtin:nothing isn't offered here" in status
    assert re.findall(r"has (\w+) = '(\w+)'", status) == [
        ("steps", "0"),
        ("scheduler", "fast"),
        ("guidance_scale", "nan"),
    ]
    assert page.get_by_label("Seed", exact=True).input_value() == "3"


def test_history_restores_an_earlier_image(pages):
    page = pages("?model=class&label=dog&steps=2&seed=1")
    press(page)
    first = saved(page, "Download the image")
    page.get_by_label("Seed", exact=True).fill("2")
    press(page)
    page.get_by_role("button", name="Restore the settings of dog-seed1.png").click()
    page.wait_for_function("document.querySelector('#seed input, #seed textarea').value === '1'")
    assert saved(page, "Download the image") == first
    press(page)
    assert saved(page, "Download the image") == first


def test_drawing_by_keyboard(pages):
    page = pages("?model=semantic&steps=2&seed=1")
    canvas = page.locator("#canvas canvas")
    page.locator("#canvas").get_by_label("star", exact=True).check()
    canvas.focus()
    for key in ("-", "-", "-", "ArrowRight", "Space", "Shift+ArrowDown", "ArrowUp", "Space", "ArrowUp", "Space"):
        page.keyboard.press(key)
    page.keyboard.press("Control+z")
    page.keyboard.press("e")
    press(page)
    numbers = np.asarray(Image.open(io.BytesIO(saved(page, "Download what was drawn")[1])))
    assert np.argwhere(numbers == 4).tolist() == [[8, 9], [14, 9]]
    canvas.focus()
    for key in ("Control+z", "Control+z", "Control+y"):
        page.keyboard.press(key)
    press(page)
    numbers = np.asarray(Image.open(io.BytesIO(saved(page, "Download what was drawn")[1])))
    assert np.argwhere(numbers == 4).tolist() == [[8, 9]]


def test_boxes_by_keyboard_and_taken_away(pages):
    page = pages("?model=layout&steps=2&seed=1")
    page.locator("#canvas canvas").focus()
    for key in ("Space", "ArrowRight", "ArrowDown", "Space"):
        page.keyboard.press(key)
    page.locator("#canvas").get_by_text("apple (8, 8, 2, 2)").wait_for()
    page.get_by_role("button", name="Remove apple").click()
    assert page.locator("#canvas li").count() == 0
    page.locator("#canvas").get_by_role("button", name="Undo").click()
    assert page.locator("#canvas li").count() == 1


def test_a_telephone(pages):
    telephone = {"viewport": {"width": 400, "height": 800}, "has_touch": True, "is_mobile": True}
    page = pages("?model=semantic&steps=2&seed=1", **telephone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.locator("#canvas").get_by_label("star", exact=True).check()
    page.locator("#canvas canvas").tap(position={"x": 100, "y": 100})
    press(page)
    numbers = np.asarray(Image.open(io.BytesIO(saved(page, "Download what was drawn")[1])))
    assert 4 in numbers
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for model in ("text", "layout", "inpaint"):
        other = pages(f"?model={model}", **telephone)
        other.get_by_role("button", name="Settings").click()
        assert other.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_server_asks_nothing_of_others(pages, server):
    press(pages(SHORT))
    asked = set(server.asked.read_text().splitlines())
    assert {line for line in asked if "127.0.0.1" not in line} == set()
    assert asked  # gradio asks the server itself whether it is there
