"""What all tests have in common."""

import gc
import os

# Before torch is imported: processes that test beside one another would fight for the cores, and tests that compare
# this process with those that it starts need the same number of threads in all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish():
    """Have the garbage collector pass over what is imported by now.

    accelerate collects at the end of each training, and would look through the half a million objects of torch,
    diffusers and transformers every time, which takes longer than to train a tiny model.
    """
    gc.collect()
    gc.freeze()
