"""The script that takes the screenshots of the page's docs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.browser
@pytest.mark.slow
def test_every_task_has_its_screenshots(tmp_path):
    pytest.importorskip("gradio")
    pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium")
    models = [str(make(tmp_path)) for make in (tiny.tiny_inpaint, tiny.tiny_layout_to_image)]
    words = [*models, "--steps", "1", "--output", str(tmp_path / "shots")]
    subprocess.run([sys.executable, str(ROOT / "scripts" / "screenshots.py"), *words], check=True, timeout=300)
    made = {path.name: path.stat().st_size for path in (tmp_path / "shots").iterdir()}
    tasks = ("inpaint", "layout-to-image")
    assert set(made) == {f"{task}-{look}.png" for task in tasks for look in ("light", "dark", "narrow")}
    assert max(made.values()) <= 60_000
