"""What all tests have in common."""

import gc
import os
import random
import shutil

import psutil
import pytest

# Before torch is imported: processes that test beside one another would fight for the cores, tests that compare this
# process with those that it starts need the same number of threads in all of them, and threads don't survive a fork.
os.environ["OMP_NUM_THREADS"] = "1"

# Some disks take milliseconds for each folder that is removed, and tests remove tens of thousands.
MEMORY = "/dev/shm"
MAX_WORKERS = 8  # each takes some gigabytes, and ten seconds of imports before its first test

# Files with tests, or things made for their tests, that take three seconds and more.
LONGEST = (
    "compilation/test_frozen.py",
    "typing/test_checkers.py",
    "pipelines/test_compile.py",
    "scripts/test_attack.py",
    "study/test_browser.py",
    "cli/test_start_up.py",
    "training/test_consistency.py",
    "io/test_hostile_pickles.py",
)

GPUS = [pytest.param(name, marks=pytest.mark.gpu) for name in ("gpu-float16", "gpu-bfloat16")]


os.fsync = os.fstat  # no test waits for the disk: a training syncs some fifty files, and no test cuts the power


def pytest_addoption(parser):
    parser.addoption("--rehearse-gpu", action="store_true", help="run tests marked gpu on the CPU, in bfloat16")


def pytest_configure(config):
    """Hide GPUs from the other tests, which compare with what CPUs compute, and fork; and have files in memory."""
    chosen = config.option.markexpr.replace("not gpu", "")
    if "gpu" not in chosen or config.getoption("rehearse_gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


def has_room(folder):
    """Whether tests may write to a folder that is in memory: they need half a gigabyte, and six if all of them fail."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):
        return False
    runs_programs = not found.f_flag & os.ST_NOEXEC  # compiled ones
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    return os.access(folder, os.W_OK) and runs_programs and free > 12 * 2**30


def pytest_collection_modifyitems(items):
    """Have the longest tests begin first, so that at the end no process waits for another that has one left."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


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


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    """A folder for large files of a module's tests, removed after them; pytest keeps its own until the end."""
    folder = tmp_path_factory.mktemp("module")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def same_draws():
    """What a test draws does not depend on the tests before it."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=["cpu-float32", *GPUS])
def placement(request):
    """A device and data type for a test that asserts the same everywhere; see tests/placements.py."""
    from placements import place

    return place(request.param, request.config)


@pytest.fixture(scope="module", params=GPUS)
def gpu(request):
    """The same for a test that compares a GPU with the CPU in float32."""
    from placements import place

    return place(request.param, request.config)


@pytest.fixture
def cuda():
    """A GPU of NVIDIA itself, for what is no matter of numbers: graphs, waiting, offloading."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs CUDA itself, also under --rehearse-gpu")
    return torch.device("cuda")
