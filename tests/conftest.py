"""What all tests have in common."""

import gc
import os
import random

import pytest

# Before torch is imported: processes that test beside one another would fight for the cores, and tests that compare
# this process with those that it starts need the same number of threads in all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

MAX_WORKERS = 8  # each takes some gigabytes, and ten seconds of imports before its first test


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """What `-n auto` means: as many processes as there are cores for this one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


@pytest.fixture(scope="module", autouse=True)
def freeze_what_is_imported():
    """Have the garbage collector pass over what other modules of tests have left, which is mostly what they imported.

    accelerate collects at the end of each training, and would look through the half a million objects of torch,
    diffusers and transformers every time, which takes longer than to train a tiny model.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_draws():
    """What a test draws does not depend on the tests before it."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
