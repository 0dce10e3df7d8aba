"""The page as a Space of Hugging Face: the three files of which its repository consists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from latentdiff import __version__
from latentdiff.errors import InputError
from latentdiff.hub.find import builtin_models, is_hub_id
from latentdiff.io.files import atomic_file

HEADER = """\
---
title: {title}
emoji: 🎨
colorFrom: red
colorTo: yellow
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
models: {models}
license: apache-2.0
---

The page of `latentdiff demo`, which makes images by latent diffusion models ({names}).

Push this folder to a Space of the SDK gradio: `hf upload OWNER/NAME . --repo-type space`.
"""
APP = '''\
"""The page of latentdiff demo, for everybody who reaches the Space."""

import sys

from latentdiff.cli.main import main

sys.exit(main({words}))
'''
REQUIREMENTS = "latentdiff[demo]=={version}\n"


def export_space(folder: str | Path, models: Sequence[str], options: Sequence[str] = ()) -> list[Path]:
    """Write the files of a Space.

    Args:
        folder: Where they go; it is made if there is none.
        models: Built-in models, or hub ids; all built-in models if there are none.
        options: Further words of the command, such as "--dtype", "auto".

    Returns:
        The files.

    Raises:
        InputError: If a model is one that a Space can't reach, or a file is there already.
    """
    for name in models:
        if name not in builtin_models() and not is_hub_id(name):
            raise InputError(
                f"{name} is neither a built-in model nor one of the hub, which a Space could reach; push it there "
                "with push_to_hub, and give its id"
            )
    hub_ids = [name for name in models if name not in builtin_models()]
    names = ", ".join(models or builtin_models())
    words = ["demo", *models, "--host", "0.0.0.0", *options]
    header = {"title": "latentdiff", "gradio": version("gradio"), "models": json.dumps(hub_ids), "names": names}
    contents = {
        "README.md": HEADER.format(**header),
        "app.py": APP.format(words=json.dumps(words)),
        "requirements.txt": REQUIREMENTS.format(version=__version__),
    }
    paths = {Path(folder, name): content for name, content in contents.items()}
    for path in paths:
        if path.exists():
            raise InputError(f"{path} exists already; choose another --export-space, or remove it")
    for path, content in paths.items():
        with atomic_file(path) as aside:
            aside.write_text(content, encoding="utf-8")
    return list(paths)
