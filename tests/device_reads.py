"""Which operations would wait for an accelerator, seen on the CPU."""

from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "_to_copy")


class CountReads(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        cast = func.name().startswith("aten::_to_copy") and (kwargs or {}).get("device") is None  # stays where it is
        if not cast and any(func.name().startswith(f"aten::{name}") for name in READS):
            self.reads.append(func.name())
        return func(*args, **(kwargs or {}))
