"""`latentdiff ema`: weights averaged over another width than those that a training run ended with."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.options import Count, Flag


def ema(
    run: Annotated[str, Parameter(name="RUN")],
    /,
    *,
    sigma_rel: float,
    output: Annotated[str, Parameter(name=("--output", "-o"))],
    step: Count | None = None,
    quiet: Flag = False,
) -> None:
    """Average the weights of a training run over another width, without training anew.

    RUN is the folder of a run whose recipe has ema.profiles. The profiles that it stored in `ema/` are combined to the
    average of the width that is asked for (Karras et al. 2024, arXiv 2312.02696).

    Args:
        sigma_rel: Width, as the standard deviation of the times that are averaged over, relative to the run's length.
        output: The folder to make.
        step: Step at which the average ends, of those in `ema/` (default: the newest).
        quiet: Print nothing but errors.
    """
    console.announce(f"reading {run}", quiet)
    with console.quiet_libraries(quiet):
        from latentdiff.training.posthoc_ema import reconstruct_ema

        made = reconstruct_ema(run, sigma_rel, output, step=step)
    if not quiet:
        console.say(
            f"{made.folder}: sigma_rel {sigma_rel:g} at update {made.updates}, of {made.snapshots} snapshots, whose "
            f"combination differs from that profile by {made.error:.2%}"
        )
