"""Where tests compute, and in what: on the CPU in float32, or by `pytest -m gpu` on a GPU in float16 and bfloat16.

A test that takes the fixture `placement` of tests/conftest.py makes the same assertions in each of these places; one
that takes `gpu` compares a GPU with the CPU, and has no case there. `pytest -m gpu --rehearse-gpu` runs what is marked
so on the CPU, in bfloat16.
"""

from dataclasses import dataclass

import pytest
import torch

# How far apart values may be that are equal but for rounding, in parts of the largest of them. A rounding is off by
# some 2^-12 (float16) or 2^-9 (bfloat16) of a value; about 40 of them come one after the other in the tiny networks of
# the tests and the few steps that these take, and what a step is off by is carried on by the next. In float32 it is
# 2^-25, but guidance multiplies differences of predictions that nearly cancel out.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 40 * 2**-12, torch.bfloat16: 40 * 2**-9}
PRECISIONS = {torch.float32: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}  # what training calls them


@dataclass(frozen=True)
class Placement:
    """A device and a data type.

    Attributes:
        device: Where networks and what they are given lie.
        dtype: What they compute in.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def tolerance(self):
        return TOLERANCES[self.dtype]

    @property
    def mixed_precision(self):
        """The option of a recipe that trains in this data type."""
        return PRECISIONS[self.dtype]

    def put(self, value):
        """A network, pipeline or tensor of floats, here."""
        return value.to(self.device, self.dtype)

    def assert_close(self, found, expected):
        """Raise an error if tensors or arrays are further apart than rounding explains."""
        found, expected = (torch.as_tensor(value).detach().double().cpu() for value in (found, expected))
        assert found.shape == expected.shape and found.isfinite().all()
        apart, most = float((found - expected).abs().max()), float(expected.abs().max())
        assert apart <= self.tolerance * most, f"{apart:.3g} apart, where the largest value is {most:.3g}"

    def assert_same(self, found, expected):
        """The same for what is computed twice alike: to the bit, but on GPUs, whose sums may come in any order."""
        if self.device.type == "cpu":
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))
        else:
            self.assert_close(found, expected)


def place(name, config):
    """The placement of a name such as "gpu-bfloat16"; skips the test if there is none here."""
    kind, dtype = name.split("-")
    if kind == "cpu":
        return Placement(torch.device("cpu"), torch.float32)
    if config.getoption("rehearse_gpu"):
        if dtype == "float16":
            pytest.skip("is rehearsed in bfloat16 alone: CPUs don't train in float16")
        return Placement(torch.device("cpu"), torch.bfloat16)
    if not torch.accelerator.is_available():
        pytest.skip("needs a GPU; --rehearse-gpu runs it on the CPU in bfloat16")
    device = torch.device(torch.accelerator.current_accelerator().type, 0)
    if dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU does not compute in bfloat16")
    return Placement(device, getattr(torch, dtype))
