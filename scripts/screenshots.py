"""Takes the screenshots of docs/demo.md: every task of the page, light and dark, wide and narrow.

    python scripts/screenshots.py [MODEL ...] [--output FOLDER] [--seed N] [--steps N]

By default the models are all built-in ones; a task without a model has no screenshots. It needs latentdiff[demo],
playwright, and a chromium of the system.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from latentdiff.cli.options import ModelOptions
from latentdiff.demo.models import Model, load_model, names_of_models
from latentdiff.demo.serve import start

LOOKS = {  # of each task: the file's ending, and what the browser is like
    "light": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 400, "height": 800}, "color_scheme": "light", "has_touch": True},
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PROMPT = "a red apple on a green background"
COLOURS = 96  # of a screenshot
MOST_BYTES = 60_000
PATIENCE = 120_000  # milliseconds for an image
STROKES = (((0.0, 0.75), (1.0, 0.75)), ((0.3, 0.3), (0.7, 0.45)))  # in parts of the sides
BOXES = (((0.08, 0.1), (0.48, 0.6)), ((0.55, 0.4), (0.92, 0.9)))


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description="Take the screenshots of docs/demo.md.")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    given = parser.parse_args()
    models = [load_model(ModelOptions(model=name)) for name in names_of_models(given.models)]
    of_task = {model.task.name: model for model in reversed(models)}
    given.output.mkdir(parents=True, exist_ok=True)
    demo, address = start(models, "127.0.0.1", 0)
    try:
        with sync_playwright() as engine:
            browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            photo = photo_for(of_task, browser, address, given.seed, given.steps)
            for task, model in of_task.items():
                for look, options in LOOKS.items():
                    page = opened(browser, address, model, given.seed, given.steps, options)
                    draw(page, model, photo)
                    make(page)
                    write(page, given.output / f"{task}-{look}.png")
                    page.context.close()
            browser.close()
    finally:
        demo.page.close(verbose=False)


def opened(browser: Browser, address: str, model: Model, seed: int, steps: int, options: dict[str, object]) -> Page:
    """The page with a model chosen."""
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    query = {"model": model.name, "seed": seed, "steps": steps, **({"prompt": PROMPT} if model.takes_prompt else {})}
    page.goto(f"{address}/?{urlencode(query)}")
    page.locator("#viewer [data-state=open]").wait_for()
    return page


def photo_for(of_task: dict[str, Model], browser: Browser, address: str, seed: int, steps: int) -> bytes:
    """A picture to mask and to enlarge: one of the text model's, or stripes if there is none."""
    if "text-to-image" not in of_task:
        stream = io.BytesIO()
        Image.linear_gradient("L").resize((64, 64)).save(stream, "PNG")
        return stream.getvalue()
    page = opened(browser, address, of_task["text-to-image"], seed, steps, {})
    make(page)
    with page.expect_download() as waited:
        page.locator("#viewer a[download]").first.click()
    content = waited.value.path().read_bytes()
    page.context.close()
    return content


def draw(page: Page, model: Model, photo: bytes) -> None:
    """Draw what the model's task needs."""
    canvas = model.controls.canvas
    if canvas in ("image", "mask"):
        chosen = page.locator("#canvas input[type=file]")
        chosen.set_input_files({"name": "photo.png", "mimeType": "image/png", "buffer": photo})
        page.wait_for_timeout(1000)
    if canvas == "mask":
        drag(page, (0.4, 0.4), (0.6, 0.6))
    if canvas in ("boxes", "labels"):
        for number, places in enumerate(BOXES if canvas == "boxes" else STROKES, 1):
            options = page.locator("#canvas .class input")
            options.nth(number % options.count()).check()
            if canvas == "labels":
                page.locator("#canvas input[type=range]").fill("6")
            drag(page, *places)


def drag(page: Page, start_place: tuple[float, float], end_place: tuple[float, float]) -> None:
    """Drag over the canvas between places in parts of its sides."""
    canvas = page.locator("#canvas canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    for place, act in ((start_place, page.mouse.down), (end_place, page.mouse.up)):
        x, y = (min(0.99, max(0.01, part)) for part in place)
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        act()


def make(page: Page) -> None:
    """Have the image made."""
    page.locator("#generate").click()
    page.locator("#viewer .history li").first.wait_for(timeout=PATIENCE)


def write(page: Page, path: Path) -> None:
    """Write a screenshot of the whole page, with fewer colours than it has."""
    page.evaluate("scrollTo(0, 0)")
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as shot:
        small = shot.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path} has {size} bytes; at most {MOST_BYTES} are wanted")
    print(path, size)


if __name__ == "__main__":
    main()
