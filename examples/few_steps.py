"""The model of class_to_image.py, distilled into few steps: ``python examples/few_steps.py``.

Whatever was trained, sampled or measured before is used again, so an interrupted run goes on.
"""

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from class_to_image import data
from common import arguments, builtin_vae, report
from emoji import MANY, sprites_of
from prediction_types import distance, quiet, run_of

TEACHER = "class-to-image"  # which class_to_image.py has trained, or this script trains
SCALE = 3.0
TEACHER_STEPS = 25
STEPS = (1, 2, 4, 8)
ROUNDS = 5
BATCH = 32
DISTILLED: dict[str, Any] = {
    "unet": {},
    "noise_schedule": {},
    "conditioning": None,
    "distill": {"guidance_scale": SCALE, "solver_steps": 50},
    "optimizer.learning_rate": 2e-4,
    "ema.decay": 0.99,
    "max_train_steps": 4000,
}


def seconds(calls: dict[str, Any]) -> dict[str, float]:
    """The median time of each call over rounds in which all are called in turn, after one that doesn't count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS + 1):
        for name, call in calls.items():
            start = perf_counter()
            call()
            if number:
                times[name].append(perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def main() -> None:
    """Distil, and print distances and times, each also as a ratio to the teacher's."""
    options = arguments(__doc__)
    train, held_out = data(options, sprites_of(MANY, options.work))
    vae, folder = builtin_vae(options.work), options.work / "few-steps"
    folder.mkdir(parents=True, exist_ok=True)
    teacher = run_of(TEACHER, TEACHER, train, vae, options, {})
    recipe = {**DISTILLED, "pretrained_model_name_or_path": str(teacher), "vae": None}
    if options.max_train_steps:
        recipe["max_train_steps"] = options.max_train_steps
    student = run_of("few-steps", TEACHER, train, vae, options, recipe)
    settings: dict[str, tuple[Path, dict[str, Any]]] = {
        f"teacher, {TEACHER_STEPS} steps": (
            teacher,
            {"guidance_scale": SCALE, "num_inference_steps": TEACHER_STEPS},
        )
    }
    settings |= {
        f"student, {steps} steps": (student, {"guidance_scale": 1.0, "num_inference_steps": steps}) for steps in STEPS
    }
    pipes = {teacher: quiet(teacher), student: quiet(student)}
    distances = {}
    for name, (place, how) in settings.items():
        samples = folder / name.replace(", ", "-").replace(" ", "-")
        distances[name] = distance(pipes[place], samples, held_out, options.samples, **how)
    labels = MANY[:BATCH]
    times = seconds(
        {
            name: lambda place=place, how=how: pipes[place](labels, seed=0, output_type="latent", **how)
            for name, (place, how) in settings.items()
        }
    )
    first = next(iter(settings))
    table = {
        name: [distances[name], distances[name] / distances[first], times[name], times[first] / times[name]]
        for name in settings
    }
    columns = ["distance", "to the teacher's", f"seconds for {len(labels)} latents", "times as fast"]
    report("few-steps", columns, table, options.work)


if __name__ == "__main__":
    main()
