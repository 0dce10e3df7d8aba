"""LPIPS: the published distance for known weights, its gradient, and files of every kind that hold it."""

import numpy as np
import pytest
import torch
from golden_weights import GOLDEN
from safetensors.torch import load_file, save_file

from latentdiff import LPIPS, CheckpointError, ConfigError, InputError, PerceptualDistance
from latentdiff.models.lpips import VGG_STAGES, WIDTHS

pytestmark = pytest.mark.thorough

SLICES = {number: i + 1 for i, stage in enumerate(VGG_STAGES) for number in stage}
SHAPES = {
    **{f"net.slice{SLICES[n]}.{n}.bias": (shape[1],) for stage in VGG_STAGES for n, shape in stage.items()},
    **{f"net.slice{SLICES[n]}.{n}.weight": (*shape[::-1], 3, 3) for stage in VGG_STAGES for n, shape in stage.items()},
    **{f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(WIDTHS)},
}


@pytest.fixture(scope="module")
def state():
    """The random weights of the golden case, drawn by its recipe, under the names of the original's LPIPS."""
    rng, tensors = np.random.RandomState(60), {}
    for name in sorted(SHAPES):
        shape = SHAPES[name]
        values = rng.standard_normal(shape)
        if name.startswith("lin"):
            values = np.abs(values) * 0.1
        else:
            values = values * (np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.05)
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return tensors


@pytest.fixture(scope="module")
def io(state):
    io = load_file(GOLDEN / "aux_lpips" / "io.safetensors")
    drawn = sum(float(tensor.double().sum()) for tensor in state.values())
    assert drawn == pytest.approx(float(io["param_names_hash"]), rel=1e-6), "the recipe draws other weights"
    return io


@pytest.fixture(scope="module")
def checkpoint(state, module_folder):
    """A training checkpoint of an original first stage: LPIPS among other tensors."""
    path = module_folder / "first_stage.ckpt"
    tensors = {f"loss.perceptual_loss.{name}": tensor for name, tensor in state.items()}
    tensors["encoder.conv_in.weight"] = torch.ones(2, 3, 3, 3)
    torch.save({"state_dict": tensors, "global_step": 3}, path)
    return path


def trunk(state):
    """The same trunk under torchvision's names, with its classifier."""
    tensors = {
        f"features.{n}.{part}": state[f"net.slice{SLICES[n]}.{n}.{part}"] for n in SLICES for part in ("weight", "bias")
    }
    return tensors | {"classifier.0.weight": torch.ones(2, 2)}


def test_distance_is_the_originals_from_a_training_checkpoint(io, checkpoint):
    found = LPIPS.from_files(checkpoint)(io["a"], io["b"])
    torch.testing.assert_close(found, io["lpips"].flatten(), rtol=1e-5, atol=1e-6)


def test_distance_is_the_originals_from_torchvisions_file_and_the_heads(io, state, tmp_path):
    save_file(trunk(state), tmp_path / "vgg16.safetensors")
    heads = {name: tensor for name, tensor in state.items() if name.startswith("lin")}
    torch.save(heads, tmp_path / "vgg.pth", _use_new_zipfile_serialization=False)
    lpips = LPIPS.from_files(tmp_path / "vgg16.safetensors", tmp_path / "vgg.pth")
    torch.testing.assert_close(lpips(io["a"], io["b"]), io["lpips"].flatten(), rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_one_channel_is_grey(checkpoint):
    lpips = LPIPS.from_files(checkpoint)
    a, b = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(lpips(a, b), lpips(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)), rtol=0, atol=0)


def test_a_caffe_trunk_sees_bgr_from_0_to_255(io, state, tmp_path):
    """The same network, fed by hand as Caffe feeds it; the unweighted distance is the weighted one of heads of 1."""
    tensors = trunk(state)
    tensors["features.0.weight"] = tensors["features.0.weight"] / 127.5
    save_file(tensors, tmp_path / "vgg16.safetensors")
    distance = PerceptualDistance.from_file(tmp_path / "vgg16.safetensors", "caffe")
    plain = PerceptualDistance.from_file(tmp_path / "vgg16.safetensors")

    def fed(images):
        pixels = (images.flip(1) + 1) * 127.5 - torch.tensor([103.939, 116.779, 123.68])[:, None, None]
        return pixels * plain.scale + plain.shift  # undoes what the module does to its input

    a, b = io["a"][:, :, :32, :32], io["b"][:, :, :32, :32]
    torch.testing.assert_close(distance(a, b), plain(fed(a), fed(b)), rtol=1e-3, atol=1e-4)


def test_gradient_by_finite_differences(checkpoint):
    lpips = LPIPS.from_files(checkpoint).double()
    rng = torch.Generator().manual_seed(0)
    images, targets, direction = torch.rand(3, 1, 3, 16, 16, generator=rng, dtype=torch.float64) * 2 - 1
    leaf = images.clone().requires_grad_()
    slope = torch.autograd.grad(lpips(leaf, targets).sum(), leaf)[0]
    step = 1e-6  # small beside the distance to the next kink of a ReLU, large beside rounding
    difference = lpips(images + step * direction, targets) - lpips(images - step * direction, targets)
    assert float((slope * direction).sum()) == pytest.approx(float(difference) / (2 * step), rel=1e-4)
    same = torch.autograd.grad(lpips(leaf, images).sum(), leaf)[0]
    assert float(lpips(images, images)) == 0 and torch.isfinite(same).all() and not same.any()


def test_wrong_files_and_images_are_one_line(state, tmp_path, checkpoint):
    save_file(trunk(state), tmp_path / "vgg16.safetensors")
    with pytest.raises(CheckpointError, match="has 0 tensors of LPIPS's heads, not 5"):
        LPIPS.from_files(tmp_path / "vgg16.safetensors")
    save_file({**trunk(state), "features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "grey.safetensors")
    with pytest.raises(CheckpointError, match=r"features\.0\.weight"):
        PerceptualDistance.from_file(tmp_path / "grey.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        LPIPS.from_files(tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match="choose torchvision or caffe"):
        PerceptualDistance("imagenet")
    distance = PerceptualDistance()
    for shapes in (((1, 3, 15, 16),) * 2, ((1, 2, 16, 16),) * 2, ((1, 3, 16, 16), (2, 3, 16, 16))):
        with pytest.raises(InputError, match="16"):
            distance(*(torch.zeros(shape) for shape in shapes))
