"""Conditioning is one value: a task is how its input becomes one, and everything after that is shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.nn.context import ContextCache


@dataclass(frozen=True)
class Conditioning:
    """What the network is given beside latents and timestep.

    Attributes:
        context: Cross-attention context (B, M, d), or what the network's `prepare_context` made of it; None if the
            network has no cross-attention.
        concat: Channels (B, c, h, w) that are concatenated to the latents (B, C, h, w); None if there are none.
    """

    context: Tensor | ContextCache | None = None
    concat: Tensor | None = None

    @property
    def batch_size(self) -> int | None:
        """The number of rows B, or None where there is no condition at all."""
        if isinstance(self.context, ContextCache):
            return self.context.batch_size
        part = self.context if self.context is not None else self.concat
        return None if part is None else part.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Conditioning:
        """Apply `function` to every tensor."""
        context, concat = self.context, self.concat
        if isinstance(context, ContextCache):
            context = context.map(function)
        elif context is not None:
            context = function(context)
        return Conditioning(context, None if concat is None else function(concat))

    def repeat(self, n: int) -> Conditioning:
        """Repeat every row n times, the copies next to each other, for n images of each input."""
        return self if n == 1 else self.map(lambda tensor: tensor.repeat_interleave(n, dim=0))

    def __getitem__(self, rows: slice) -> Conditioning:
        return self.map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditioning:
        """Bring every tensor to another device or dtype."""
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    @staticmethod
    def beside(parts: Sequence[Conditioning]) -> Conditioning:
        """Join the parts of one condition: contexts by their tokens, as the network attends to all; channels in order.

        This is the original's `conditioning_key: hybrid` with several entries of either kind.

        Args:
            parts: Conditions of as many rows each, their contexts (B, M_i, d) of one width d.
        """
        contexts = [part.context for part in parts if isinstance(part.context, Tensor)]
        concats = [part.concat for part in parts if part.concat is not None]
        context = torch.cat(contexts, dim=1) if contexts else None
        return Conditioning(context, torch.cat(concats, dim=1) if concats else None)

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Join along the batch; `cat([uncond, cond])` is the order of classifier-free guidance.

        Raises:
            InputError: If only some of them have a context, or a concatenated part, or their lengths differ.
        """
        contexts = [part.context for part in parts]
        concats = [part.concat for part in parts if part.concat is not None]
        caches = [context for context in contexts if isinstance(context, ContextCache)]
        tensors = [context for context in contexts if isinstance(context, Tensor)]
        if any(len(found) not in (0, len(parts)) for found in (caches, tensors, concats)):
            raise InputError("conditionings of different kinds can't be joined; give all of them the same parts")
        lengths = {tensor.shape[1] for tensor in tensors}
        if len(lengths) > 1:
            raise InputError(f"contexts have {sorted(lengths)} tokens; pad them to one length")
        context = ContextCache.cat(caches) if caches else torch.cat(tensors) if tensors else None
        return Conditioning(context, torch.cat(concats) if concats else None)
