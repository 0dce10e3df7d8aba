"""The guide into the code: its examples run, one after the other, and the files that it names are there."""

import re
from pathlib import Path

import pytest
import torch
import toy
from PIL import Image

from latentdiff import registry

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "extending.md").read_text(encoding="utf-8")
REGISTRIES = [entry for entry in vars(registry).values() if isinstance(entry, registry.Registry)]


def test_examples_run(tmp_path, monkeypatch):
    """Each adds to a registry, which is as before afterwards; the last trains the new task and samples from it."""
    for entry in REGISTRIES:
        monkeypatch.setattr(entry, "_entries", dict(entry._entries))
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number, colour in enumerate(("red", "green", "blue", "orange")):
        Image.new("RGB", (16, 16), colour).save(f"photos/{number}.png")
    torch.manual_seed(0)
    toy.write_vae(tmp_path / "runs" / "first-stage" / "vae")
    fences = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    exec("\n".join(fences), {"__name__": "example"})
    assert (tmp_path / "colourise" / "pipeline" / "model_index.json").exists()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)[)#]", TEXT))))
def test_links_lead_to_files(link):
    assert (DOCS / link).exists()


def test_every_registry_has_a_row():
    names = [name for name, entry in vars(registry).items() if isinstance(entry, registry.Registry)]
    assert names and all(f"`{name}`" in TEXT for name in names)
