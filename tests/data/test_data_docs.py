import re
from pathlib import Path

import pytest

from latentdiff.registry import DEGRADATIONS, MASKS

TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_examples_run(code):
    exec(code, {"__name__": "example"})


def test_every_name_is_listed():
    for name in DEGRADATIONS.names() + MASKS.names():
        assert f"| `{name}` |" in TEXT
