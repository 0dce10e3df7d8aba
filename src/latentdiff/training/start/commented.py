"""YAML with comments, as people write it: mappings in lines, lists in brackets, a remark behind what needs one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import yaml

from latentdiff.types import JSON


def commented_yaml(head: Sequence[str], values: JSON, remarks: Mapping[str, str]) -> str:
    """The text of a YAML file.

    Args:
        head: The lines of the comment that it begins with.
        values: Nested mappings, in the order of the file.
        remarks: Comments behind values, by their dotted names.
    """
    lines = [f"# {line}" for line in head]
    return "\n".join([*lines, *_lines(values, remarks, "", "")]) + "\n"


def _lines(values: JSON, remarks: Mapping[str, str], name: str, indent: str) -> Iterator[str]:
    for key, value in values.items():
        dotted = f"{name}{key}"
        remark = f"  # {remarks[dotted]}" if dotted in remarks else ""
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:{remark}"
            yield from _lines(value, remarks, f"{dotted}.", f"{indent}  ")
        else:
            yield f"{indent}{key}: {_in_one_line(value)}{remark}"


def _in_one_line(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
