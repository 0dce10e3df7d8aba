"""The section `lora` of a recipe."""

from __future__ import annotations

from typing import Any

from latentdiff.config import check

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def check_lora(lora: dict[str, Any]) -> None:
    """ConfigError unless the recipe's section `lora` is one: rank, alpha (the rank by default), target_modules."""
    unknown = sorted(set(lora) - {"rank", "alpha", "target_modules"})
    check(not unknown, f"lora has {unknown}; it takes rank, alpha and target_modules")
    rank, alpha = lora.get("rank"), lora.get("alpha", 1)
    check(type(rank) is int and rank > 0, f"lora has rank {rank!r}; it must be an integer of at least 1, such as 8")
    check(type(alpha) in (int, float) and alpha > 0, f"lora has alpha {alpha!r}; it must be a number above 0")
    targets = lora.get("target_modules", ATTENTION)
    check(
        isinstance(targets, list) and bool(targets) and all(isinstance(name, str) for name in targets),
        f"lora has target_modules {targets!r}; give a list of ends of names of layers, such as {ATTENTION}",
    )
