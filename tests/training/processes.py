"""Runs in processes of their own that cost no imports: a server that has torch loaded forks them, and kills them.

Each line on its input is a run: `{"output", "world_size", "kill_after", "saving", "options"}`; so is the answer.
It must be a process that has computed nothing, since torch's threads do not survive a fork.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path


class Runs:
    """The server's side that tests see."""

    def __init__(self):
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # pytest's
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def __call__(self, output, world_size=1, kill_after=None, saving=False, **options):
        """Run `tiny_run.run`; the exit codes of its processes, and how long they took.

        Args:
            output: Its folder.
            world_size: The number of processes.
            kill_after: Seconds after which they are killed, if at all.
            saving: Whether it is then waited for a save to begin.
            **options: Of the run.
        """
        job = {"output": str(output), "world_size": world_size, "kill_after": kill_after, "saving": saving}
        job["options"] = options
        print(json.dumps(job), file=self.process.stdin, flush=True)
        done = json.loads(self.process.stdout.readline())
        return done["codes"], done["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def fork(run, job, rank, port):
    """A child that makes the run as process `rank`."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(f"{job['output']}.{rank}.err", "w") as file:
            os.dup2(file.fileno(), 2)
        os.dup2(2, 1)
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": job["world_size"],
            "LOCAL_WORLD_SIZE": job["world_size"],
        }
        if job["world_size"] > 1:
            os.environ.update({name: str(value) for name, value in place.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        options = job["options"]
        calls = {"run": run, "pipeline": pipeline, "first_stage": first_stage, "killed_in_best": killed_in_best}
        calls[options.pop("call", "run")](Path(job["output"]), **options)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


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


def ended(pid):
    """Whether a child has come to its end, for which it can still be waited."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def serve():
    from tiny_run import run

    for line in sys.stdin:
        job = json.loads(line)
        start, port = time.perf_counter(), free_port()
        pids = [fork(run, job, rank, port) for rank in range(job["world_size"])]
        if job["kill_after"] is not None:
            while time.perf_counter() - start < job["kill_after"] and not any(map(ended, pids)):
                time.sleep(0.001)
            while job["saving"] and not any(Path(job["output"]).glob(".checkpoint-*")) and not any(map(ended, pids)):
                pass
            for pid in random.sample(pids, len(pids)):  # as when a machine is lost, but never all in the same instant
                os.kill(pid, signal.SIGKILL)
                time.sleep(random.random() * 0.02)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps({"codes": codes, "seconds": time.perf_counter() - start}), flush=True)


if __name__ == "__main__":
    serve()
