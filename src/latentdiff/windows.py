"""Large images in overlapped windows: memory follows the window, not the image (section 4.3.2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentdiff.errors import InputError


@dataclass(frozen=True)
class Windows:
    """How a large image is cut into squares that a network sees one after the other.

    Where windows overlap, their results are averaged with weights that fall to zero towards each window's border
    (sin^2 ramps, which sum to 1), so no border shows. While denoising, the borders lie elsewhere at every step.

    Args:
        size: Side of a window in pixels, at best the size that the model was trained on.
        overlap: Pixels that neighbours share, from 0 to half of `size`.
        wrap: Whether the image's left and right edges are neighbours, as in a panorama.

    Raises:
        InputError: If a number is out of its range.
    """

    size: int
    overlap: int
    wrap: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise InputError(f"windows: size is {self.size!r}; it must be an integer of at least 1")
        most, whole = self.size // 2, isinstance(self.overlap, int) and not isinstance(self.overlap, bool)
        if not whole or not 0 <= self.overlap <= most:
            raise InputError(f"windows: overlap is {self.overlap!r}; it must be an integer from 0 to {most}")

    def divided(self, factor: int, multiple: int) -> Windows:
        """Count the same windows in latent pixels, each of which is `factor` pixels wide.

        Raises:
            InputError: If the window's side is no multiple of `factor * multiple`, or the overlap none of `factor`.
        """
        if self.size % (factor * multiple) or self.overlap % factor:
            raise InputError(
                f"windows: size {self.size} and overlap {self.overlap} don't fit this model; "
                f"size must be a multiple of {factor * multiple}, overlap of {factor}"
            )
        return Windows(self.size // factor, self.overlap // factor, self.wrap)

    def covers(self, height: int, width: int) -> bool:
        """Tell whether one window holds an image of this height and width, in the unit of `size`."""
        return max(height, width) <= self.size and not self.wrap

    def apply(
        self,
        function: Callable[..., Tensor],
        *inputs: Tensor,
        zoom_in: int = 1,
        zoom_out: int = 1,
        phase: float = 0.0,
        device: torch.device | None = None,
    ) -> Tensor:
        """Run `function` window by window and join the results.

        Args:
            function: Takes as many tensors as there are inputs and returns (B', C, zoom_out * h, zoom_out * w).
            *inputs: Tensors (B, c, zoom_in * H, zoom_in * W), cut into (B, c, zoom_in * h, zoom_in * w), h = w = size.
            zoom_in: How many pixels of the inputs lie along a unit of `size`.
            zoom_out: How many pixels of the result lie along a unit of `size`.
            phase: The windows are moved by this part of their distance, in [0, 1).
            device: Where the joined result is kept, by default where the function's results are.

        Returns:
            The joined result (B', C, zoom_out * H, zoom_out * W).
        """
        height, width = (side // zoom_in for side in inputs[0].shape[-2:])
        rows = _Axis.of(self, height, phase, wrap=False)
        columns = _Axis.of(self, width, phase, wrap=self.wrap)
        row_shares, column_shares = rows.shares(zoom_out), columns.shares(zoom_out)
        joined: Tensor | None = None
        for i in range(len(rows.starts)):
            for j in range(len(columns.starts)):
                part = function(*(columns.cut(rows.cut(tensor, i, zoom_in, -2), j, zoom_in, -1) for tensor in inputs))
                if joined is None:
                    shape = (*part.shape[:2], zoom_out * height, zoom_out * width)
                    joined = torch.zeros(shape, dtype=part.dtype, device=device or part.device)
                part = (part * (row_shares[i][:, None] * column_shares[j]).to(part)).to(joined.device)
                band = rows.cut(joined, i, zoom_out, -2)
                for start, first, length in columns.pieces(j, zoom_out):
                    band.narrow(-1, start, length).add_(part.narrow(-1, first, length))
        assert joined is not None
        return joined


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis: where each starts, and how long windows, overlaps and the axis are."""

    starts: list[int]
    size: int
    overlap: int
    length: int

    @classmethod
    def of(cls, windows: Windows, length: int, phase: float, *, wrap: bool) -> _Axis:
        """Place windows so that they cover `length`: evenly around it, or from its start to its end."""
        size = min(windows.size, length)
        stride = max(1, size - windows.overlap)
        if wrap:
            count = math.ceil(length / stride)
            starts = [int((i + phase) * length / count) % length for i in range(count)]
        else:
            shift, last = int(phase * stride), length - size
            starts = sorted({min(max(i * stride - shift, 0), last) for i in range((last + shift) // stride + 2)})
        return cls(starts, size, windows.overlap, length)

    def pieces(self, i: int, zoom: int) -> list[tuple[int, int, int]]:
        """Window i on the zoomed axis as (place on the axis, place in the window, length): two if it wraps around."""
        start, size, length = zoom * self.starts[i], zoom * self.size, zoom * self.length
        before_edge = min(size, length - start)
        pieces = [(start, 0, before_edge)]
        if before_edge < size:
            pieces.append((0, before_edge, size - before_edge))
        return pieces

    def shares(self, zoom: int) -> list[Tensor]:
        """Weights of each window on the zoomed axis; those of all windows sum to 1 at every place."""
        size = zoom * self.size
        border = torch.minimum(torch.arange(size), torch.arange(size).flip(0)) + 0.5  # distance to it
        ramp = torch.sin((border / max(zoom * self.overlap, 1)).clamp(max=1) * (math.pi / 2)) ** 2
        total = torch.zeros(zoom * self.length)
        for i in range(len(self.starts)):
            for start, first, length in self.pieces(i, zoom):
                total[start : start + length] += ramp[first : first + length]
        return [ramp / self.cut(total, i, zoom, 0) for i in range(len(self.starts))]

    def cut(self, tensor: Tensor, i: int, zoom: int, dim: int) -> Tensor:
        """Cut window i out of a tensor: a view, unless it goes around the edge."""
        parts = [tensor.narrow(dim, start, length) for start, _, length in self.pieces(i, zoom)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
