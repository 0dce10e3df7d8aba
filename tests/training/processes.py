"""Runs in processes of their own, one or several that know of one another, which may be killed."""

import os
import random
import signal
import time
from pathlib import Path

from forked import Forked, all_ended, launched, wait_for
from tiny_run import run


class Runs:
    """Makes runs, one after the other."""

    def __init__(self):
        self.processes = []

    def __call__(self, output, world_size=1, kill_after=None, saving=False, call="run", **options):
        """Make a run of `CALLS`; the exit codes of its processes, and how long they took.

        Args:
            output: Its folder; what its processes write beside it goes into files of its name.
            world_size: The number of processes.
            kill_after: Seconds after which they are killed, if at all.
            saving: Whether it is then waited for a save to begin.
            call: What makes it.
            **options: Of the run.
        """
        start = time.perf_counter()

        def make():
            CALLS[call](Path(output), **options)

        self.processes = launched(make, world_size) if world_size > 1 else [Forked(make)]
        if kill_after is not None:
            self._kill(output, start + kill_after, saving)
        done = all_ended(self.processes)
        for rank, process in enumerate(done):
            Path(f"{output}.{rank}.err").write_text(process.stderr)
        return [process.returncode for process in done], time.perf_counter() - start

    def _kill(self, output, when, saving):
        """As when a machine is lost, but never all in the same instant."""

        def one_has_ended():
            return not all(process.is_alive() for process in self.processes)

        wait_for(lambda: time.perf_counter() >= when or one_has_ended())
        while saving and not any(Path(output).glob(".checkpoint-*")) and not one_has_ended():
            pass
        for process in random.sample(self.processes, len(self.processes)):
            process.kill()
            time.sleep(random.random() * 0.02)

    def close(self):
        """End what a test that failed has left at work."""
        for process in self.processes:
            process.end()


def pipeline(output, task, data, vae, shards, **options):
    """A pipeline on the toy world."""
    import toy
    from tiny_run import share_out

    share_out(shards)
    toy.train(task, Path(data), vae, output, **options)


def killed_in_best(output, nth, **options):
    """The same, killed right before the `nth` time that something is renamed to or from what `best/` holds."""
    before, calls = os.replace, 0

    def replace(source, target):
        nonlocal calls
        calls += any(Path(path).parent == output / "best" for path in (source, target))
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        before(source, target)

    os.replace = replace
    pipeline(output, shards=None, **options)


def first_stage(output, data, shards):
    """A first stage with a discriminator, which takes part in the last steps."""
    import toy
    from tiny_run import share_out

    from latentdiff.config import load_recipe
    from latentdiff.training.first_stage import task as stage
    from latentdiff.training.recipes import FirstStageRecipe

    share_out(shards)
    options = {"data.resolution": toy.SIDE, "model": toy.VAE, "train_batch_size": 4, "max_train_steps": 6}
    options |= {"data.train_data_dir": data, "output_dir": str(output), "logging_steps": 1, "report_to": "none"}
    options |= {"loss.adversarial.discriminator": {"channels": 8, "layers": 2}, "loss.adversarial.start_step": 2}
    options |= {"optimizer.learning_rate": 3e-3, "validation.share": 0.25, "validation.steps": 3}
    stage.train_first_stage(load_recipe(FirstStageRecipe, None, options))


CALLS = {"run": run, "pipeline": pipeline, "first_stage": first_stage, "killed_in_best": killed_in_best}
