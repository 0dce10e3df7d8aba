"""A few real objects for tests of the recipes."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def emoji_bodies() -> dict[str, str]:
    """SVG bodies of eight Noto emoji (Apache-2.0)."""
    return json.loads((HERE / "emoji_sample.json").read_text(encoding="utf-8"))["bodies"]


@pytest.fixture(scope="session")
def emoji_sprites(emoji_bodies):
    pytest.importorskip("resvg_py", reason="the emoji extra is not installed")
    from emoji_scenes.render import render_sprites

    return render_sprites(emoji_bodies, 128)
