"""What somebody does who has a folder and reads nothing: ``python examples/newcomer.py``.

The folder `photos` has 300 mixed photographs, which are parts of the 27 of photographs.py in all sizes and shapes. Two
commands follow, and all that they print is kept in `newcomer/transcript.txt`.
"""

import argparse
import glob
import subprocess
import sys
from pathlib import Path

import numpy as np
from photographs import training_photographs

from latentdiff.io.files import atomic_folder

COUNT = 300
SIDES = (300, 1200)  # of the shorter side, in pixels
RATIOS = (3 / 4, 2 / 3, 1, 4 / 3, 3 / 2, 16 / 9)  # of width to height


def photos(folder: Path, downloads: Path) -> None:
    """Write the folder, unless it is there."""
    if folder.exists():
        return
    rng, sources = np.random.default_rng(0), list(training_photographs(downloads))
    with atomic_folder(folder) as aside:
        for number in range(COUNT):
            whole = sources[number % len(sources)]
            ratio, short = RATIOS[rng.integers(len(RATIOS))], int(rng.integers(*SIDES))
            width, height = (round(short * max(ratio, 1)), round(short * max(1 / ratio, 1)))
            scale = min(1.0, whole.width / width, whole.height / height)
            width, height = int(width * scale), int(height * scale)
            left, top = int(rng.integers(whole.width - width + 1)), int(rng.integers(whole.height - height + 1))
            part = whole.crop((left, top, left + width, top + height))
            part.save(aside / f"{number:03d}.jpg", quality=90)


def run(words: list[str], folder: Path) -> None:
    """Run a command of latentdiff in the folder; its words and what it prints go to the terminal and the transcript."""
    with (folder / "transcript.txt").open("a", encoding="utf-8") as transcript:

        def say(text: str) -> None:
            print(text, end="", flush=True)
            transcript.write(text)

        say(f"$ latentdiff {' '.join(words)}\n")
        command = [sys.executable, "-m", "latentdiff", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, cwd=folder, **pipes) as process:
            for line in process.stdout or ():
                say(line)
        if process.returncode:
            raise SystemExit(process.returncode)


def main() -> None:
    """Make the folder, and do what a newcomer does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--hours", help="time for both stages (default: what their recipes propose)")
    options = parser.parse_args()
    folder = (options.work / "newcomer").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    photos(folder / "photos", options.work)
    if not list(folder.glob("photos-*.yaml")):
        run(["init", "photos", *(["--hours", options.hours] if options.hours else [])], folder)
    run(["train", *sorted(glob.glob("photos-*.yaml", root_dir=folder))], folder)


if __name__ == "__main__":
    main()
