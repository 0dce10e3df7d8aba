"""The batch script of docs/training.md under a scheduler that is played: it ends jobs, and starts them again."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy
import yaml

from latentdiff.training.engine import checkpoint

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
FAKES = {
    "srun": 'echo $$ > srun.pid; exec "$@"',
    "scontrol": 'echo "$@" >> requeued',
    "latentdiff": f'exec "{sys.executable}" -m latentdiff "$@"',
}


class Slurm:
    """A scheduler of one job, in a folder."""

    def __init__(self, folder, script):
        self.folder, self.script = folder, script
        (folder / "bin").mkdir()
        for name, body in FAKES.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/bash\n{body}\n")
            path.chmod(0o755)

    def start(self, hours="23.5", before_end=None):
        """Run the job once; its exit code, and whether it asked to be started again.

        Args:
            hours: What `max_hours` is in the script.
            before_end: When to send SIGTERM to what srun started, as `--signal=TERM@300` has it.
        """
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        job = subprocess.Popen(
            ["bash", "-c", self.script.replace("--max_hours 23.5", f"--max_hours {hours}")],
            cwd=self.folder,
            env=os.environ | {"PATH": path, "SLURM_JOB_ID": "17", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if before_end is not None:
            while not before_end() and job.poll() is None:
                time.sleep(0.01)
            os.kill(int((self.folder / "srun.pid").read_text()), signal.SIGTERM)
        output = job.communicate()[0]
        requeued = self.folder / "requeued"
        again = requeued.exists() and requeued.read_text() == "requeue 17\n"
        requeued.unlink(missing_ok=True)
        return job.returncode, again, output


def test_a_job_is_started_until_the_run_has_ended(tmp_path):
    data, vae = toy.write(tmp_path / "images"), toy.write_vae(tmp_path / "vae")
    recipe = {
        "output_dir": "run",
        "data": {"train_data_dir": str(data), "resolution": toy.SIDE},
        "vae": str(vae),
        "unet": toy.UNET,
        "train_batch_size": 2,
        "max_train_steps": 400,
        "checkpoint": {"steps": 20},
        "report_to": "none",
    }
    (tmp_path / "diffusion.yaml").write_text(yaml.safe_dump(recipe))
    (script,) = re.findall(r"```bash slurm\n(.*?)```", TEXT, re.DOTALL)
    slurm = Slurm(tmp_path, script)

    def steps():
        return [checkpoint.step_of(path) for path in checkpoint.existing(tmp_path / "run")]

    code, again, output = slurm.start(hours="1e-9")
    assert (code, again, steps()) == (75, True, [1]) and "max_hours 1e-09 are over after step 1" in output
    code, again, output = slurm.start(before_end=lambda: max(steps()) > 1)
    assert (code, again) == (143, True) and 1 < max(steps()) < 400 and "SIGTERM after step" in output
    code, again, output = slurm.start()
    assert (code, again, max(steps())) == (0, False, 400), output
    assert (tmp_path / "run" / "pipeline" / "model_index.json").is_file()
    (tmp_path / "diffusion.yaml").write_text(yaml.safe_dump(recipe | {"vae": "nowhere", "output_dir": "other"}))
    code, again, output = slurm.start()  # a mistake is not tried again
    assert (code, again) == (2, False) and "no such folder nowhere" in output
