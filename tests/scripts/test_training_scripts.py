"""The scripts train as the commands do, alone and under `accelerate launch`."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from latentdiff import DiffusionPipeline

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def options(tmp_path):
    """Flags of a tiny run of each stage; both need no recipe."""
    data, vae = toy.write(tmp_path / "data"), toy.write_vae(tmp_path / "vae")
    shared = {"data.train_data_dir": data, "data.resolution": toy.SIDE, "train_batch_size": 4, "max_train_steps": 2}
    shared |= {"logging_steps": 1, "optimizer.max_grad_norm": "inf"}
    first_stage = {"model": json.dumps(toy.VAE), "output_dir": tmp_path / "first-stage"}
    diffusion = {"vae": vae, "unet": json.dumps(toy.UNET), "output_dir": tmp_path / "diffusion"}
    stages = {"train_first_stage.py": first_stage, "train_diffusion.py": diffusion}
    return {
        script: [str(part) for name, value in (shared | own).items() for part in (f"--{name}", value)]
        for script, own in stages.items()
    }


def images_of(folder):
    return [json.loads(line)["images"] for line in (folder / "log.jsonl").read_text().splitlines()]


def check(folder, images):
    assert images_of(folder / "first-stage") == images_of(folder / "diffusion") == images
    assert (folder / "first-stage" / "vae" / "config.json").exists()
    pipe = DiffusionPipeline.from_pretrained(folder / "diffusion" / "pipeline")
    assert pipe(num_inference_steps=1, seed=0).images[0].size == (toy.SIDE, toy.SIDE)


@pytest.mark.thorough
def test_alone(options, tmp_path, monkeypatch):
    for script, argv in options.items():
        monkeypatch.setattr(sys, "argv", [script, *argv])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        assert stopped.value.code == 0
    check(tmp_path, images=[4, 8])


@pytest.mark.slow
def test_accelerate_launch(options, tmp_path):
    for script, argv in options.items():
        # By --multi_gpu, which starts CPU processes where there is no GPU; --cpu starts one, or needs mpirun.
        launch = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
        command = [sys.executable, "-m", *launch, "--mixed_precision", "no", str(SCRIPTS / script), *argv]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    check(tmp_path, images=[8, 16])
