"""The snippets of docs/hub.md run, in order, as one program."""

import re
from pathlib import Path

import pytest
from loopback_hub import LFS_BYTES

from latentdiff import DiffusionPipeline

TEXT = (Path(__file__).parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_snippets_run(hub, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained("model")
    pipe.save_pretrained("model", variant="ema")
    pipe.save_pretrained("model/small")
    repo = hub.add("owner/apples", tmp_path / "model")
    repo.refs["v1"] = repo.refs["main"]
    exec("\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)), {})
    assert hub.repos["owner/pears"].private and hub.repos["owner/pears"].pulls == 1
    assert any(len(data) > LFS_BYTES for data in hub.repos["owner/pears"].commits[-1][1].values())
