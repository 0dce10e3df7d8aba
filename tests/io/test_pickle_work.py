"""What a pickle may describe: all that checkpoints hold, and nothing that never ends; tests/io/gadgets.py has files."""

import pickle
import pickletools
from collections import OrderedDict

import pytest
import torch

from latentdiff.io.pickle_work import MAX_DEPTH, MAX_OPERATIONS, PickleWork
from latentdiff.io.tensor_files import open_tensors


def check(content):
    work = PickleWork()
    for operation, argument, _ in pickletools.genops(content):
        work.follow(operation, argument)
    work.check()
    return work


def tuples(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    return value


def test_sizes_are_those_of_the_tree():
    inner = ("a", 1)  # a pair: 3 with itself
    work = check(pickle.dumps({(inner, inner): [1, 2], "b": inner}, 2))
    assert [(node.size, node.depth) for node in work.used] == [(7, 2)]


def test_depth_of_what_is_hashed():
    check(pickle.dumps({tuples(MAX_DEPTH - 1): 1}, 2))
    with pytest.raises(ValueError, match="200 levels"):
        check(pickle.dumps({tuples(MAX_DEPTH + 1): 1}, 2))


def test_what_is_only_held_may_lie_deep():
    deep = tuples(900)
    check(pickle.dumps({"deep": deep}, 2))


@pytest.mark.thorough
def test_number_of_operations():
    with pytest.raises(ValueError, match="more than 600000 operations"):
        check(b"\x80\x02" + b"]" * MAX_OPERATIONS + b".")


def test_an_argument_that_holds_its_own_call():
    with pytest.raises(ValueError, match="contains itself"):
        check(b"\x80\x02]q\x00ccollections\nOrderedDict\nh\x00\x85Rq\x01h\x00h\x01a.")


@pytest.mark.parametrize("content", [b"\x80\x02\x85.", b"\x80\x02e.", b"\x80\x02h\x05.", b"\x80\x02NNa.", b"\x80\x02."])
def test_operations_out_of_place(content):
    with pytest.raises((ValueError, LookupError)):
        check(content)


@pytest.mark.parametrize("zipped", [True, False])
def test_an_optimizers_state_is_read(tmp_path, zipped):
    """Hundreds of tensors beside the weights, numbers and lists that many entries share, and a cycle."""
    weights = OrderedDict((f"layer.{i}.weight", torch.ones(2, 3, 1, 1)) for i in range(300))
    betas, loop = (0.9, 0.999), []
    loop.append(loop)
    state = {i: {"step": i, "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)} for i in range(300)}
    groups = [{"lr": 1e-4, "betas": betas, "params": list(range(300))} for _ in range(3)]
    content = {"state_dict": weights, "optimizer_states": [{"state": state, "param_groups": groups}], "loop": loop}
    torch.save(content, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    assert open_tensors(tmp_path / "model.ckpt").keys() == list(weights)
