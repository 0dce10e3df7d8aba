"""What axe-core finds. scripts/check_accessibility.sh fetches it, and says by AXE where it is."""

import os

import pytest
from test_tasks import photo, press
from tiny_models import MAKERS

pytestmark = [pytest.mark.browser, pytest.mark.thorough]

PROMPTS = {"text": "&prompt=a+dog"}
SERIOUS = ("serious", "critical")


@pytest.fixture
def faults():
    """Says what axe finds on a page, the serious faults alone."""
    place = os.environ.get("AXE")
    if place is None:
        pytest.skip("needs axe-core; run scripts/check_accessibility.sh")

    def find(page):
        page.add_script_tag(path=place)
        found = page.evaluate("axe.run()")["violations"]
        return [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found
            if rule["impact"] in SERIOUS
            for node in rule["nodes"]
        ]

    return find


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("model", MAKERS)
def test_no_serious_faults(pages, faults, model, scheme):
    page = pages(f"?model={model}&steps=2&seed=1{PROMPTS.get(model, '')}", color_scheme=scheme)
    page.get_by_role("button", name="Settings").click()
    if model in ("super", "inpaint"):
        page.locator("#canvas input[type=file]").set_input_files(photo())
        page.locator("#canvas .fault:not(:empty)").wait_for(state="hidden")
    if model not in ("inpaint", "layout"):  # which have to be drawn on
        press(page)
    assert faults(page) == []
