import re
from pathlib import Path

import pytest
import yaml

from latentdiff.config import from_mapping
from latentdiff.data.options import DataOptions
from latentdiff.registry import DEGRADATIONS, MASKS

TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
def test_examples_run(code):
    exec(code, {"__name__": "example"})


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL))
def test_options_are_options(block):
    from_mapping(DataOptions, yaml.safe_load(block)["data"])


def test_every_option_is_told():
    absent = [name for name in DataOptions.model_fields if name not in TEXT]
    assert absent == []


def test_every_name_is_listed():
    for name in DEGRADATIONS.names() + MASKS.names():
        assert f"| `{name}` |" in TEXT
