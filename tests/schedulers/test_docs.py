import re
from pathlib import Path

import pytest

from latentdiff.registry import SCHEDULERS

TEXT = (Path(__file__).parents[2] / "docs" / "schedulers.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_examples_run(code, monkeypatch):
    monkeypatch.setattr(SCHEDULERS, "_entries", dict(SCHEDULERS._entries))
    exec(code, {"__name__": "example"})


def test_every_scheduler_is_listed():
    for name in SCHEDULERS.names():
        assert f"| `{name}` | `{SCHEDULERS.get(name).__name__}` |" in TEXT
