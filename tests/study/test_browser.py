"""The page in a browser, through whole studies. Needs playwright, and a chromium of the system."""

import shutil
import sqlite3

import pytest
from small_studies import picture

pytestmark = [pytest.mark.browser, pytest.mark.thorough]

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("uvicorn")
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page on which nothing may go wrong but requests that a test lets fail."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda message: page.faults.append(message.text) if "Security Policy" in message.text else None)
    page.outside = []
    page.on("request", lambda request: page.outside.append(request.url))
    page.set_default_timeout(15_000)
    yield page
    assert page.faults == []
    context.close()


@pytest.fixture
def words(folders):
    return folders.ours, folders.theirs, folders.truth, "--pairs", 4, "--checks", 2


def chosen(tmp_path, query="SELECT chosen FROM answers WHERE chosen IS NOT NULL ORDER BY number, position"):
    connection = sqlite3.connect(f"{(tmp_path / 'study.db').as_uri()}?mode=ro", uri=True)
    try:
        return [value for (value,) in connection.execute(query)]
    finally:
        connection.close()


def answer(page, number, key):
    page.get_by_text(f"Pair {number} of").wait_for()
    page.locator("#left:enabled").wait_for()
    page.keyboard.press(key)


def test_a_whole_study_by_keyboard(page, serve, words, study, folders, tmp_path):
    server = serve(*words, "--inputs", folders.inputs, "--task", "super-resolution", "--look", 0.3)
    page.goto(server.address)
    page.get_by_text("You will see 6 pairs of images").wait_for()
    page.keyboard.press("Space")
    keys = ["ArrowLeft", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowRight"]
    for number, key in enumerate(keys, 1):
        page.get_by_text(f"Pair {number} of 6").wait_for()
        if number == 1:
            page.locator("#left img[src]").wait_for()
            page.keyboard.press("ArrowRight")  # before the look is over, which does nothing
            assert page.locator("#middle img").get_attribute("class") == "coarse"
        answer(page, number, key)
    page.get_by_text("All 6 answers are stored.").wait_for()
    assert chosen(tmp_path) == [
        pair.left if key == "ArrowLeft" else pair.right for pair, key in zip(study.pairs(0), keys, strict=True)
    ]
    assert min(chosen(tmp_path, "SELECT answered - shown FROM answers")) >= 0.3
    assert {url.startswith((server.address, "data:")) for url in page.outside} == {True}


def test_by_touch_on_a_telephone(chromium, serve, words, study, folders, tmp_path):
    server = serve(*words, "--inputs", folders.inputs, "--task", "inpainting", "--look", 0, "--invite", 1)
    context = chromium.new_context(viewport={"width": 400, "height": 700}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.links[0])
    page.get_by_role("button", name="Start").tap()
    for number in range(1, 7):
        page.get_by_text(f"Pair {number} of 6").wait_for()
        right = page.get_by_role("button", name="Right image")
        page.locator("#right:enabled").wait_for()
        assert page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight"
        )
        left, middle, box = (page.locator(place).bounding_box() for place in ("#left", "#middle", "#right"))
        assert left["width"] == box["width"] > 150
        assert middle["y"] + middle["height"] <= left["y"] == box["y"]
        right.tap()
    page.get_by_text("All 6 answers are stored.").wait_for()
    assert chosen(tmp_path) == [pair.right for pair in study.pairs(0)]
    page.reload()
    page.get_by_text("All 6 answers are stored.").wait_for()
    context.close()


def test_a_browser_that_is_closed_goes_on_where_it_was(chromium, serve, words, study, tmp_path):
    server = serve(*words, "--look", 0, "--invite", 1)
    for first, last in ((1, 2), (3, 6)):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(server.links[0])
        page.get_by_role("button", name="Start" if first == 1 else "Go on").click()
        for number in range(first, last + 1):
            answer(page, number, "ArrowLeft")
        page.get_by_text(f"Pair {last + 1} of 6" if last < 6 else "All 6 answers").wait_for()
        context.close()
    assert chosen(tmp_path) == [pair.left for pair in study.pairs(0)]


def test_an_answer_waits_for_a_server_that_is_gone(page, serve, words, study, tmp_path):
    server = serve(*words, "--look", 0)
    page.goto(server.address)
    page.get_by_role("button", name="Start").click()
    answer(page, 1, "ArrowLeft")
    page.get_by_text("Pair 2 of 6").wait_for()
    page.locator("#left:enabled").wait_for()
    server.kill()
    page.keyboard.press("ArrowRight")
    page.get_by_text("The server can't be reached. Your answer is kept and sent again").wait_for()
    again = serve(*words, "--look", 0, "--port", server.address.rpartition(":")[2])
    answer(page, 3, "ArrowLeft")
    page.get_by_text("Pair 4 of 6").wait_for()
    assert page.locator("#trouble").is_hidden()
    pairs = study.pairs(0)
    assert chosen(tmp_path) == [pairs[0].left, pairs[1].right, pairs[2].left]
    assert again.address == server.address


def test_an_open_study_knows_its_participant_again(page, serve, words, tmp_path):
    server = serve(*words, "--look", 0)
    page.goto(server.address)
    page.get_by_role("button", name="Start").click()
    answer(page, 1, "ArrowLeft")
    page.get_by_text("Pair 2 of 6").wait_for()
    page.goto(server.address)
    page.get_by_text("1 of 6 answers are stored.").wait_for()
    page.get_by_role("button", name="Go on").click()
    answer(page, 2, "ArrowLeft")
    page.get_by_text("Pair 3 of 6").wait_for()
    page.goto(server.address)
    page.get_by_role("button", name="Start as somebody else").click()
    answer(page, 1, "ArrowLeft")
    page.get_by_text("Pair 2 of 6").wait_for()
    assert chosen(tmp_path, "SELECT number FROM answers WHERE chosen IS NOT NULL ORDER BY number") == [0, 0, 1]


def test_addresses_that_are_none(page, serve, words):
    server = serve(*words, "--invite", 1, "--expire", 0)
    page.goto(f"{server.address}/s/nobody")
    page.get_by_text("This address belongs to no invitation.").wait_for()
    page.goto(server.links[0])
    page.get_by_text("This invitation has expired.").wait_for()
    page.goto(server.address)
    page.get_by_text("This study is open to invited people only.").wait_for()


def test_an_image_that_is_gone_is_said_and_tried_again(page, serve, words, folders):
    server = serve(*words, "--look", 0)
    page.goto(server.address)
    away = [folder.rename(folder.with_name(f"{folder.name}-gone")) for folder in (folders.ours, folders.truth)]
    page.get_by_role("button", name="Start").click()
    page.get_by_text("An image can't be shown.").wait_for()
    for folder in away:
        folder.rename(folder.with_name(folder.name.removesuffix("-gone")))
    answer(page, 1, "ArrowLeft")
    page.get_by_text("Pair 2 of 6").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in(chromium, serve, folders, scheme):
    """Contrast of all text is at least that of WCAG AA."""
    for folder in (folders.ours, folders.theirs):
        picture(1).save(folder / "a.png")
    server = serve(folders.ours, folders.theirs, "--look", 0)
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(server.address)
    page.get_by_role("button", name="Start").wait_for()
    ratios = page.evaluate(CONTRASTS)
    page.get_by_role("button", name="Start").click()
    page.locator("#left:enabled").wait_for()
    ratios.update(page.evaluate(CONTRASTS))
    assert len(ratios) > 6
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}
    context.close()


CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  const found = {};
  for (const element of document.querySelectorAll("h1, p, button, strong")) {
    const text = element.textContent.trim();
    if (!text || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))];
    found[text] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
}"""
