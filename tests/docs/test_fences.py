"""Python in the documentation: what is marked `python` runs, what is marked `py` compiles and imports what there is."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from diffusers import AutoencoderKL
from PIL import Image

from latentdiff import DDIMScheduler, UnconditionalPipeline, UNet2DConditionModel
from latentdiff.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/latentdiff/builtin/*/README.md")])
}
RUN_ELSEWHERE = {
    "docs/caching.md": "tests/test_caching.py",
    "docs/data.md": "tests/data/test_data_docs.py",
    "docs/extending.md": "tests/test_extending.py",
    "docs/guidance.md": "tests/guidance/test_guidance_docs.py",
    "docs/hub.md": "tests/hub/test_hub_docs.py",
    "docs/schedulers.md": "tests/schedulers/test_docs.py",
    "docs/start.md": "tests/hub/test_newcomer.py",
    "docs/training.md": "tests/training/test_training_docs.py",
    "docs/viz.md": "tests/viz/test_viz_docs.py",
}
RUN_HERE = [
    *("README.md", "docs/conversion.md", "docs/evaluation.md"),
    *("docs/from-diffusers.md", "docs/from-original.md", "docs/tasks.md"),
]


def fences(text, kind):
    return re.findall(rf"```{kind}(?: \w+)?\n(.*?)```", text, re.DOTALL)


def test_every_page_with_python_is_run():
    assert sorted(page for page, text in PAGES.items() if fences(text, "python")) == sorted([*RUN_ELSEWHERE, *RUN_HERE])


@pytest.mark.parametrize(("page", "test"), RUN_ELSEWHERE.items())
def test_the_test_that_runs_a_page_reads_it(page, test):
    text = (ROOT / test).read_text(encoding="utf-8")
    assert f'"{Path(page).name}"' in text and "exec(" in text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the pages name: a checkpoint of the original code, pictures, folders of them."""
    monkeypatch.chdir(tmp_path)
    sides = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(32, 64), latent_channels=4, layers_per_block=1, **sides)
    unet = UNet2DConditionModel(
        in_channels=4, out_channels=4, sample_size=8, block_out_channels=(32, 64), layers_per_block=1,
        attention_levels=(False, True), num_head_channels=32,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    UnconditionalPipeline(vae, unet, scheduler).save_pretrained("model-of-today")
    assert main(["convert", "model-of-today", "original", "--to", "original"]) == 0
    for name in ("model.ckpt", "config.yaml"):
        Path("original", name).rename(name)
    Image.new("RGB", (64, 64), "red").save("apple.png")
    Image.new("L", (64, 64), "white").save("top.png")
    for name in ("samples", "train-images"):
        Path(name).mkdir()
        for shade in range(10):
            Image.new("RGB", (32, 32), (25 * shade, len(name), 0)).save(f"{name}/{shade}.png")
    return tmp_path


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")
@pytest.mark.parametrize("page", RUN_HERE)
def test_python_runs(page, folder):
    exec("\n".join(fences(PAGES[page], "python")), {})


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if fences(text, "py")])
def test_py_compiles_and_imports_what_there_is(page):
    for fence in fences(PAGES[page], "py"):
        for node in ast.walk(ast.parse(fence)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
