"""The documentation's picture is what its snippet makes."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import text_to_image

from latentdiff import DiffusionPipeline, viz

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "viz.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_snippet_makes_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(SNIPPETS[0], {})
    made, shown = (np.array(Image.open(folder / "viz.png").convert("RGB")).astype(int) for folder in (tmp_path, DOCS))
    assert made.shape[0] == shown.shape[0] and abs(made.shape[1] - shown.shape[1]) <= 6  # fonts differ by version
    beaches = []
    for sheet in (made, shown):
        cell = (sheet.shape[1] - 8) // 3 - 8
        left = 8 + (cell - 128) // 2
        beaches.append(sheet[8:136, left : left + 128])
    assert np.abs(beaches[0] - beaches[1]).max() <= 2 and (beaches[1] != 255).any()
    assert (DOCS / "viz.png").stat().st_size < 40 * 1024


def test_the_snippet_of_denoising_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(SNIPPETS[1], {"pipe": text_to_image(tmp_path)})
    assert Image.open("apple.png").width > 5 * 16


def test_the_snippets_of_previews_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"pipe": text_to_image(tmp_path)}
    exec(SNIPPETS[3], names)
    assert 0 < names["share"] <= 1 and DiffusionPipeline.from_pretrained("with-previews").preview(
        torch.zeros(1, 4, 8, 8)
    )
    exec(SNIPPETS[2], names)
    assert Image.open("preview.png").size == (8, 8)


def test_the_table_names_everything():
    assert set(re.findall(r"^\| `(\w+)\(", TEXT, re.MULTILINE)) == set(viz.__all__) - {"class_colour"}
