"""Snapshots of power-function averages on disk, a file for each time, and the average that is put together of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from latentdiff.errors import CheckpointError, InputError
from latentdiff.io.files import atomic_file
from latentdiff.training.engine.ema import PROFILE
from latentdiff.training.engine.ema_profiles import Combination, Profile, combine

FOLDER = "ema"
SNAPSHOT = re.compile(r"step-(\d+)\.safetensors")


def snapshot_files(output_dir: Path) -> dict[int, Path]:
    """The snapshots of a run by their steps, the oldest first."""
    folder = output_dir / FOLDER
    names = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    found = {int(match[1]): path for path in names if (match := SNAPSHOT.fullmatch(path.name))}
    return dict(sorted(found.items()))


def forget_after(output_dir: Path, step: int) -> None:
    """Remove the snapshots of later steps, which a run that goes on from an earlier checkpoint makes again."""
    for made, path in snapshot_files(output_dir).items():
        if made > step and not path.is_symlink():
            path.unlink()


def write_snapshot(
    output_dir: Path, step: int, updates: int, averages: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """Write the profiles among the averaged weights as `ema/step-STEP.safetensors`.

    Raises:
        OSError: If the disk doesn't allow it.
    """
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in averages.items() if PROFILE in name}
    folder = output_dir / FOLDER
    folder.mkdir(exist_ok=True)
    with atomic_file(folder / f"step-{step}.safetensors") as aside:
        save_file(tensors, aside, metadata={"updates": str(updates)})


@dataclass(frozen=True)
class Snapshots:
    """The snapshots of a run up to a step.

    Attributes:
        files: The files, by their steps.
        updates: The updates of each.
        widths: The widths of the profiles, which each of them has.
        names: The parameters, of which each has all.
    """

    files: dict[int, Path]
    updates: dict[int, int]
    widths: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, output_dir: Path, step: int | None = None) -> Snapshots:
        """Open the snapshots of a run.

        Args:
            output_dir: The run's folder.
            step: The step up to which they are taken; by default all.

        Raises:
            InputError: If there are none, or not one of that step.
            CheckpointError: If one is damaged, or they don't have the same profiles of the same parameters.
        """
        files = snapshot_files(output_dir)
        if not files:
            raise InputError(
                f"{output_dir} holds no snapshots of averages; train with ema.profiles and ema.snapshot_steps"
            )
        if step is not None and step not in files:
            steps = ", ".join(map(str, list(files)[-8:]))
            raise InputError(f"step is {step}, of which {output_dir} has no snapshot; give one of {steps}")
        files = {made: path for made, path in files.items() if step is None or made <= step}
        parts: dict[int, set[tuple[str, str]]] = {}
        updates: dict[int, int] = {}
        for made, path in files.items():
            with _opened(path) as file:
                said = (file.metadata() or {}).get("updates", "")
                if not said.isdigit() or not int(said):
                    raise CheckpointError(f"{path} doesn't say after how many updates it was made; remove it")
                updates[made] = int(said)
                names = [name.rpartition(PROFILE) for name in file.keys()]  # noqa: SIM118 (it is no mapping)
                parts[made] = {(name, width) for name, _, width in names}
        first, whole = next(iter(parts.items()))
        for made, found in parts.items():
            if found != whole:
                raise CheckpointError(
                    f"{files[made]} has other profiles or parameters than {files[first].name}, so they can't be "
                    "combined; remove those of another run"
                )
        widths = tuple(sorted({width for _, width in whole}, key=float))
        return cls(files, updates, widths, tuple(sorted({name for name, _ in whole})))

    def combination(self, sigma_rel: float) -> Combination:
        """The factors of the profiles, snapshot after snapshot, that come nearest to the average of a width.

        Raises:
            ConfigError: If no average has that width.
        """
        profiles = [Profile(float(width), self.updates[made]) for made in self.files for width in self.widths]
        return combine(profiles, Profile(sigma_rel, max(self.updates.values())))

    def averages(self, combination: Combination) -> Iterator[tuple[str, torch.Tensor]]:
        """Each parameter's name and its average, float32; one at a time, so memory is that of one.

        Raises:
            CheckpointError: If a file is damaged.
        """
        weights = combination.weights.reshape(len(self.files), len(self.widths))
        with ExitStack() as stack:
            opened = [stack.enter_context(_opened(path)) for path in self.files.values()]
            for name in self.names:
                total = torch.zeros(())
                for file, row in zip(opened, weights, strict=True):
                    for width, weight in zip(self.widths, row, strict=True):
                        total = total + float(weight) * file.get_tensor(f"{name}{PROFILE}{width}").double()
                yield name, total.float()


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())}); remove it") from None
