"""Makes the folders that ship: ``python recipes/emoji/publish_tasks.py --tasks layout class``.

Of each task's run the averaged weights are stored in half precision, and measured as they are stored; the model card
has these figures, and so has docs/builtin.md. The first stage stays that of ``builtin:emoji``, which all share.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from evaluate_tasks import MEASURED, Figures, Setting, setting_of
from train_tasks import STEPS

import latentdiff
from latentdiff import DiffusionPipeline
from latentdiff.data.latent_cache import weights_fingerprint
from latentdiff.hub.find import SHARED
from latentdiff.io.files import atomic_folder
from latentdiff.tasks import TaskSpec, task_of_pipeline

CARD = Path(__file__).with_name("task_card.md")
BUILTIN = Path(latentdiff.__file__).with_name("builtin")
PAGE = Path(__file__).parents[2] / "docs" / "builtin.md"
OWNER = "emoji"  # of the first stage
COMMANDS = {
    "layout": "layout boxes.json",
    "upscale": "upscale small.png",
    "inpaint": "inpaint photo.png --mask mask.png",
    "class": "class rocket",
    "semantic": "semantic map.png",
    "unconditional": "sample -n 16",
}
LIMITS = {
    "layout": "It knows the twelve objects of the recipe, on white, at most three at a time, at a third to a half of "
    "the image's side.",
    "upscale": "It has seen flat colours and sharp outlines alone, so photographs come out painted. Only small images "
    "that were shrunk without noise are known to it.",
    "inpaint": "It completes the 24 objects that it knows, on flat colours; in a photograph it paints what fits the "
    "colours around the hole.",
    "class": "It knows 24 objects, in the middle of one of eleven colours, which it chooses itself.",
    "semantic": "It knows twelve objects on white, and outlines as exact as those that it was trained on.",
    "unconditional": "It draws 24 objects in the middle of one of eleven colours; some of its images are between two.",
}


def card(name: str, pipe: Any, spec: TaskSpec, figures: Figures, setting: Setting, steps: int) -> str:
    """The model card."""
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module) and part is not pipe.vae]
    return CARD.read_text(encoding="utf-8").format(
        name=name,
        task=spec.name,
        hub_tag=spec.hub_tag,
        summary=spec.summary,
        command=COMMANDS[name],
        parameters=sum(weights.numel() for network in networks for weights in network.parameters()) / 1e6,
        steps=f"{steps:,}",
        samples=setting.samples,
        solver_steps=setting.steps,
        table=figures.table(name),
        limits=LIMITS[name],
    )


def rounded(pipe: Any) -> None:
    """The weights as half precision keeps them, in single precision."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.half().float()


def publish(name: str, runs: Path, setting: Setting) -> None:
    """Writes the built-in model of a task, and its sheet of images."""
    run = runs / f"emoji-{name}"
    pipe = DiffusionPipeline.from_pretrained(run / "pipeline", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rounded(pipe)
    owner = DiffusionPipeline.from_pretrained(f"builtin:{OWNER}", dtype=torch.float32).vae
    same = weights_fingerprint(owner) == weights_fingerprint(pipe.vae)
    if not same or owner.config.scaling_factor != pipe.vae.config.scaling_factor:
        raise SystemExit(f"{run} has another first stage than builtin:{OWNER}; train it by recipes/emoji/{name}.yaml")
    figures = MEASURED[name](pipe, setting)
    spec = task_of_pipeline(type(pipe).__name__)
    assert spec is not None
    steps = int((run / STEPS).read_text(encoding="utf-8"))
    text = card(name, pipe, spec, figures, setting, steps)
    print(figures.table(name), flush=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()
    with atomic_folder(BUILTIN / f"emoji-{name}") as aside:
        pipe.save_pretrained(aside)
        shutil.rmtree(aside / "vae")
        (aside / SHARED).write_text(json.dumps({"vae": OWNER}) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(text, encoding="utf-8")
    PAGE.with_suffix("").mkdir(exist_ok=True)
    figures.sheet().save(PAGE.with_suffix("") / f"{name}.png", optimize=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    after = rest.partition(f"<!-- /{name} -->")[2]
    PAGE.write_text(f"{before}<!-- {name} -->\n\n{figures.table(name)}\n\n<!-- /{name} -->{after}", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=MEASURED, default=list(MEASURED), help="default: all")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of train_tasks.py's runs")
    parser.add_argument("--data", type=Path, default=Path("data/emoji-tasks"), help="that of prepare_tasks.py")
    parser.add_argument("--work", type=Path, default=Path("emoji-sources"), help="folder for the downloaded package")
    parser.add_argument("--samples", type=int, default=192, help="images that are measured; default: %(default)s")
    options = parser.parse_args()
    setting = setting_of(options.data, options.work, options.samples, 20)
    for name in options.tasks:
        publish(name, options.runs, setting)


if __name__ == "__main__":
    main()
