"""Every task at the size of its published model: `python benchmarks/tasks.py [--models NAME ...] [--steps 50]`.

Weights are random, so images are noise, but time and memory are those of the real model. Each model runs in a process
of its own: three steps are made, the time of one is extrapolated to `--steps`, the decoding is added, and memory is
the peak above what the process held after its weights were there. `--sizes 256 512 ...` measures instead how memory
grows with the image, whole and in windows, on a small network.
"""

import argparse
import itertools
import multiprocessing
import statistics
import threading
import time

import numpy as np
import psutil
import torch

import latentdiff
from latentdiff import DDIMScheduler, UNet2DConditionModel, VQModel
from latentdiff.conversion.plan import make_conversion_plan
from latentdiff.conversion.zoo import zoo_config
from latentdiff.registry import PIPELINES

GREY = np.full((256, 256, 3), 128, dtype=np.uint8)
HOLE = np.zeros((256, 256), dtype=bool)
HOLE[64:192, 64:192] = True
OBJECTS = [{"class": 0, "box": (0.1, 0.1, 0.5, 0.5)}]

# What a call of each model is given beside its options.
INPUTS = {
    "celeba256": {},
    "lsun_churches256": {},
    "cin256-v2": {"class_labels": 0},
    "text2img256": {"prompt": "a virus monster is playing guitar"},
    "txt2img-1p4B": {"prompt": "a virus monster is playing guitar"},
    "layout2img-openimages256": {"layouts": OBJECTS},
    "bsr_sr": {"image": GREY[:64, :64]},
    "inpainting_big": {"image": GREY, "mask_image": HOLE},
    "semantic_synthesis256": {"label_map": GREY[..., 0].astype(int)},
}


def build(name: str):
    """The pipeline of a model of the zoo, with random weights."""
    plan = make_conversion_plan(zoo_config(name))
    torch.manual_seed(0)
    parts = {}
    for part, made in plan.parts.items():
        network = made.model.to_empty(device="cpu").eval().requires_grad_(False)
        for parameter in [*network.parameters(), *network.buffers()]:
            if parameter.is_floating_point():
                parameter.normal_(0, 0.02)
        parts[part] = network
    parts["scheduler"] = DDIMScheduler(**plan.scheduler)
    if plan.task == "layout-to-image":
        parts["tokenizer"] = latentdiff.LayoutTokenizer(num_classes=600)
    if plan.task == "text-to-image":
        from latentdiff.models.tokenizer import BERT_VOCABULARY, load_tokenizer

        parts["tokenizer"] = load_tokenizer(BERT_VOCABULARY, 77)
    pipe = PIPELINES.get(plan.task)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Peak:
    """The largest resident size of this process while the block runs."""

    def __enter__(self):
        self.process, self.on = psutil.Process(), True
        self.start = self.top = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while self.on:
            self.top = max(self.top, self.process.memory_info().rss)
            time.sleep(0.01)

    def __exit__(self, *_):
        self.on = False
        self.thread.join()
        self.mib = (self.top - self.start) / 2**20


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def model(name: str, steps: int) -> str:
    """One line of the table of models."""
    pipe = build(name)
    marks = []

    def mark(_pipe, _step, _timestep, tensors):
        marks.append(time.perf_counter())
        return tensors

    with Peak() as peak:
        whole, _ = timed(lambda: pipe(**INPUTS[name], num_inference_steps=3, seed=0, callback_on_step_end=mark))
    step = statistics.median(b - a for a, b in itertools.pairwise(marks))
    seconds = whole + (steps - 3) * step
    weights = sum(
        p.numel() for part in pipe.components.values() if hasattr(part, "parameters") for p in part.parameters()
    )
    return f"| {name} | {weights / 1e6:.0f} M | {step:.2f} | {seconds:.0f} | {peak.mib:.0f} MiB |"


def size(side: int, windows: int | None) -> str:
    """One line of the table of sizes."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, in_channels=3, out_channels=3, block_out_channels=(64, 128), layers_per_block=1,
        attention_levels=(False, False), mid_block_attention=False, num_head_channels=32,
    ).eval()  # fmt: skip
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    vae = VQModel(block_out_channels=(32, 64, 64), latent_channels=3, mid_block_add_attention=False, **blocks).eval()
    pipe = latentdiff.UnconditionalPipeline(vae=vae, unet=unet, scheduler=DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe(height=64, width=64, num_inference_steps=1)  # what torch allocates once
    with Peak() as peak:
        seconds, _ = timed(lambda: pipe(height=side, width=side, num_inference_steps=1, windows=windows))
    return f"| {side} | {windows or 'whole'} | {peak.mib:.0f} MiB | {seconds:.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(INPUTS), choices=INPUTS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sizes", nargs="*", type=int, help="measure memory against the image's side instead")
    options = parser.parse_args()
    jobs = [(size, (side, windows)) for side in options.sizes or [] for windows in (None, 256)]
    header = "| pixels a side | windows | peak memory | one step |\n|---|---|---|---|"
    if not options.sizes:
        jobs = [(model, (name, options.steps)) for name in options.models]
        header = (
            f"| model | parameters | seconds a step | seconds for {options.steps} steps (extrapolated) | peak memory |"
        )
        header += "\n|---|---|---|---|---|"
    print(header, flush=True)
    context = multiprocessing.get_context("spawn")
    for function, arguments in jobs:
        with context.Pool(1) as pool:
            print(pool.apply(function, arguments), flush=True)


if __name__ == "__main__":
    main()
