"""Figures of the code's structure, for docs/architecture.md: `python scripts/house_figures.py`.

Printed are the files of the package that a prompt walks through to its pixels, in the order in which they are entered
first; how often a load of the built-in model lists folders and opens weight files; lines of code; and words `Any`.
It runs on any commit whose `src/` comes first on PYTHONPATH.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import latentdiff
from latentdiff import TextToImagePipeline

PACKAGE = Path(latentdiff.__file__).parent


def own_caller(folder: Path) -> str | None:
    """The file of the package that the innermost frame of its own belongs to, None if a library runs by itself."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(folder):
            return file.relative_to(folder).as_posix()
        if "site-packages" in file.parts:
            return None
        frame = frame.f_back
    return None


def load_figures() -> tuple[TextToImagePipeline, Counter[str], Counter[str]]:
    """The built-in model, and how often the package's own code listed each folder and opened each weight file."""
    listed, opened = Counter[str](), Counter[str]()
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not watching or event not in ("os.listdir", "os.scandir", "open"):
            return
        path = str(args[0])
        if "builtin" in path and own_caller(PACKAGE) is not None:
            if event == "open" and path.endswith(".safetensors"):
                opened[os.path.relpath(path, PACKAGE)] += 1
            elif event != "open":
                listed[os.path.relpath(path, PACKAGE)] += 1

    sys.addaudithook(hook)
    pipe = TextToImagePipeline.from_pretrained("builtin:emoji")
    watching = False
    return pipe, listed, opened


def rooms(pipe: TextToImagePipeline) -> list[str]:
    """The package's files that are entered between a prompt and its image, in order."""
    entered: dict[str, None] = {}

    def profile(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            entered.setdefault(file.relative_to(PACKAGE).as_posix())

    pipe.set_progress_bar_config(disable=True)
    sys.setprofile(profile)
    pipe("a red apple", num_inference_steps=2, seed=0)
    sys.setprofile(None)
    return list(entered)


def lines(folder: str) -> int:
    """Lines of Python below a folder of the package."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (PACKAGE / folder).rglob("*.py"))


def main() -> None:
    """Print them."""
    pipe, listed, opened = load_figures()
    walked = rooms(pipe)
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    print(f"files from a prompt to its pixels: {len(walked)}: {', '.join(walked)}")
    most = max(listed.values())
    print(f"folders listed in a load: {sum(listed.values())} times ({len(listed)} folders, one up to {most} times)")
    print(f"weight files opened for their headers: {sum(opened.values())} times ({len(opened)} files)")
    for folder in ("cli", "training", "hub", "pipelines", "inspection", "."):
        if (PACKAGE / folder).exists():
            print(f"lines of {folder}: {lines(folder):,}")
    print(f"words Any: {sum(len(re.findall(r'(?<![A-Za-z0-9_])Any(?![A-Za-z0-9_])', text)) for text in sources)}")


if __name__ == "__main__":
    main()
