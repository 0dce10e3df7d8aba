import shutil

import pytest
from tiny_models import MAKERS, DemoServer

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("demo")
    for make in MAKERS.values():
        make(folder)
    started = DemoServer(folder)
    started.models = folder
    yield started
    started.end()


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def pages(chromium, server):
    """Opens pages, on which nothing may go wrong, and which may ask nothing of other servers."""
    contexts, faults = [], []

    def open_page(query="", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: faults.append(request.url) if is_outside(request.url) else None)
        page.set_default_timeout(20_000)
        page.goto(server.address + query)
        page.locator("#viewer [data-state=open]").wait_for()
        return page

    def is_outside(url):
        return not url.startswith((server.address.rstrip("/"), "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def page(pages):
    return pages()
