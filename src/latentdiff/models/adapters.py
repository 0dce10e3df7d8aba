"""How adapters act in a network's `forward`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from diffusers.utils.peft_utils import apply_lora_scale

Given = ParamSpec("Given")
Result = TypeVar("Result")


def adapters_scaled(forward: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a `forward` by diffusers' scaling of adapters, which imports peft, where that is asked for."""
    scaled: Callable[Given, Result] = apply_lora_scale("cross_attention_kwargs")(forward)

    @functools.wraps(forward)
    def chosen(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        asked = kwargs.get("cross_attention_kwargs") is not None
        return scaled(*args, **kwargs) if asked else forward(*args, **kwargs)

    return chosen
