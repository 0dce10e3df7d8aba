"""References: files of moments of other programs, read safely, and data of training."""

import collections
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from small_features import SmallFeatures
from test_samples import make, values

from latentdiff import CheckpointError, ConfigError, InputError, UnsafeCheckpointError
from latentdiff.evaluation.array_pickles import read_arrays
from latentdiff.evaluation.image_sets import open_images
from latentdiff.evaluation.references import open_reference
from latentdiff.evaluation.samples import SamplesEvaluation, evaluate_samples


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two folders, the numbers between them, and the moments and pixels of the second."""
    root = tmp_path_factory.mktemp("measured")
    fake, real = make(root / "fake", 20, seed=1), make(root / "real", 30, seed=2)
    evaluation = SamplesEvaluation(fake, real, features=SmallFeatures(is_fid=True), cache=root / "c")
    evaluation.compute()
    found = values(evaluation.report())
    side = evaluation.sides[False][1]
    pool, spatial = side.moments("pool"), side.moments("spatial")
    moments = {"mu": pool.mean, "sigma": pool.covariance, "mu_s": spatial.mean, "sigma_s": spatial.covariance}
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(real.glob("*.png"))])
    return fake, found, moments, pixels


def test_adms_file_has_moments_and_images(measured, tmp_path):
    fake, found, moments, pixels = measured
    np.savez(tmp_path / "adm.npz", arr_0=pixels, **moments)
    report = evaluate_samples(fake, tmp_path / "adm.npz", features=SmallFeatures(is_fid=True), cache=tmp_path / "c")
    assert values(report) == pytest.approx(found, rel=1e-12)
    assert report.results[0].name == "fid[small, none, 20, adm]"


@pytest.mark.parametrize("compressed", [False, True])
def test_samples_can_be_an_npz(measured, tmp_path, compressed):
    fake, found, moments, pixels = measured
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(fake.glob("*.png"))])
    (np.savez_compressed if compressed else np.savez)(tmp_path / "fake.npz", images)
    np.savez(tmp_path / "adm.npz", arr_0=pixels, **moments)
    options = {"features": SmallFeatures(is_fid=True), "cache": tmp_path / "c"}
    assert values(evaluate_samples(tmp_path / "fake.npz", tmp_path / "adm.npz", **options)) == pytest.approx(found)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("nested", [False, True])
def test_edms_pickle_is_read_without_running_it(measured, tmp_path, protocol, nested):
    _, _, moments, _ = measured
    content = {"mu": moments["mu"], "sigma": np.asfortranarray(moments["sigma"])}
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps({"fid": content} if nested else content, protocol))
    reference = open_reference(tmp_path / "edm.pkl")
    assert reference.images is None and list(reference.moments) == ["pool"]
    assert np.array_equal(reference.moments["pool"].covariance, moments["sigma"])
    assert np.array_equal(reference.moments["pool"].mean, moments["mu"])


def test_edms_npz_and_torch_fidelitys_cache_give_the_same_fid(measured, tmp_path):
    fake, found, moments, _ = measured
    content = {name: moments[name] for name in ("mu", "sigma")}
    np.savez(tmp_path / "edm.npz", **content)
    torch.save(content, tmp_path / "fidelity.pt")
    for file in ("edm.npz", "fidelity.pt"):
        report = evaluate_samples(fake, tmp_path / file, features=SmallFeatures(is_fid=True), cache=tmp_path / "c")
        assert values(report) == pytest.approx({"fid": found["fid"], "is": found["is"]}, rel=1e-12)
        assert any("precision and recall left out: the reference" in note for note in report.notes)


def test_features_of_torch_fidelitys_cache_give_the_numbers_of_their_images(measured, tmp_path):
    fake, found, _, pixels = measured
    with torch.no_grad():
        pool = SmallFeatures()(torch.from_numpy(pixels).permute(0, 3, 1, 2))["pool"]
    file = tmp_path / "real-inception-v3-compat-features-2048.pt"
    torch.save(pool, file)
    options = {"features": SmallFeatures(is_fid=True), "cache": tmp_path / "c"}
    report = evaluate_samples(fake, file, **options)
    of_pool = {name: found[name] for name in ("fid", "is", "precision", "recall", "density", "coverage")}
    assert values(report) == pytest.approx(of_pool, rel=1e-4)
    assert any("sfid left out: the reference" in note for note in report.notes)
    assert report.facts["reference_count"] == 30
    assert evaluate_samples(fake, file, reference_count=29, **options).facts["reference_count"] == 29
    for options, match in (
        ({"reference_count": 31}, "31 images of real-.* are asked for; it has features of 30"),
        ({"features": SmallFeatures(), "metrics": ["precision"]}, "has no images, and moments of small come from no"),
    ):
        with pytest.raises(InputError, match=match):
            evaluate_samples(fake, file, **{"features": SmallFeatures(is_fid=True), "cache": tmp_path / "c", **options})


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (torch.zeros(3), InputError, r"holds torch.float32 \(3,\); features are float32 \(N, D\)"),
        (torch.zeros(3, 6).double(), InputError, r"holds torch.float64 \(3, 6\)"),
        ({"pool": torch.zeros(3, 6)}, InputError, "holds no tensor"),
        (torch.full((3, 6), torch.nan), CheckpointError, "values that are not finite"),
    ],
    ids=["flat", "double", "mapping", "nan"],
)
def test_tensors_that_are_no_features_are_one_line(tmp_path, content, error, match):
    torch.save(content, tmp_path / "features.pt")
    with pytest.raises(error, match=match):
        open_reference(tmp_path / "features.pt")


def test_features_of_another_network_are_refused(measured, tmp_path):
    torch.save(torch.zeros(9, 7), tmp_path / "seven.pt")
    with pytest.raises(InputError, match="the reference seven has 7 features, small has 6; it was made by another pro"):
        SamplesEvaluation(measured[0], tmp_path / "seven.pt", features=SmallFeatures(is_fid=True), cache=tmp_path)


def test_pickles_that_run_code_are_no_features(tmp_path, capsys):
    torch.save({"mu": Harm()}, tmp_path / "harm.pt")
    with pytest.raises(UnsafeCheckpointError):
        open_reference(tmp_path / "harm.pt")
    assert capsys.readouterr().out == ""


class Harm:
    """Runs code where a pickle is trusted."""

    def __reduce__(self):
        return (print, ("harm",))


class Odd(dict):
    """A class that no file of moments needs."""


@pytest.mark.parametrize(
    "harm", [Harm(), collections.OrderedDict(), Odd(), np.float64(1)], ids=lambda x: type(x).__name__
)
def test_pickles_that_name_anything_else_are_refused(tmp_path, capsys, harm):
    (tmp_path / "harm.pkl").write_bytes(pickle.dumps({"mu": np.zeros(2), "sigma": harm}))
    with pytest.raises(UnsafeCheckpointError, match="would run code to be read: it names"):
        read_arrays(tmp_path / "harm.pkl")
    assert capsys.readouterr().out == ""


def test_damaged_files_of_moments_are_one_line(measured, tmp_path):
    whole = pickle.dumps({"mu": np.zeros(600), "sigma": np.eye(600)})
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "text.pkl").write_bytes(pickle.dumps({"mu": "a", "sigma": "b"}))
    (tmp_path / "objects.pkl").write_bytes(pickle.dumps({"mu": np.array([{}, {}]), "sigma": np.eye(2)}))
    np.savez(tmp_path / "shapes.npz", mu=np.zeros(3), sigma=np.zeros((3, 2)))
    np.savez(tmp_path / "nan.npz", mu=np.zeros(2), sigma=np.full((2, 2), np.nan))
    np.savez(tmp_path / "neither.npz", weights=np.zeros(3))
    np.savez(tmp_path / "floats.npz", arr_0=np.zeros((2, 4, 4, 3)))
    np.savez(tmp_path / "pickled.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    (tmp_path / "no.npz").write_bytes(b"PK not a zip")
    for file, error, match in (
        ("cut.pkl", CheckpointError, "is damaged"),
        ("list.pkl", CheckpointError, "no mapping of arrays"),
        ("text.pkl", InputError, "neither images nor moments"),
        ("objects.pkl", CheckpointError, "bytes don't fit"),
        ("shapes.npz", InputError, r"must be \(D,\) and \(D, D\)"),
        ("nan.npz", InputError, "mu or sigma holds values that are not finite"),
        ("neither.npz", InputError, "neither images nor moments"),
        ("floats.npz", InputError, "must be uint8"),
        ("pickled.npz", InputError, "cannot be read as an .npz"),
        ("no.npz", InputError, "cannot be read as an .npz"),
        ("absent.npz", InputError, "cannot be read as an .npz"),
        ("absent.pkl", InputError, "cannot be read"),
    ):
        with pytest.raises(error, match=match) as caught:
            open_reference(tmp_path / file)
        assert "\n" not in str(caught.value)


def test_moments_of_another_protocol_are_refused(measured, tmp_path):
    fake, _, moments, _ = measured
    np.savez(tmp_path / "seven.npz", mu=np.zeros(7), sigma=np.eye(7))
    with pytest.raises(InputError, match="moments of 7 features, small has 6; it was made by another protocol"):
        SamplesEvaluation(fake, tmp_path / "seven.npz", features=SmallFeatures(is_fid=True), cache=tmp_path)
    np.savez(tmp_path / "six.npz", mu=moments["mu"], sigma=moments["sigma"])
    with pytest.raises(InputError, match="six has no images, and moments of small come from no file"):
        SamplesEvaluation(fake, tmp_path / "six.npz", features=SmallFeatures(), metrics=["frechet"], cache=tmp_path)


def test_a_recipe_names_data_with_its_resolution(measured, tmp_path):
    fake = measured[0]
    (tmp_path / "recipe.yaml").write_text(f"data: {{train_data_dir: {fake}, resolution: 8}}\nmax_train_steps: 3\n")
    assert open_images(tmp_path / "recipe.yaml").pixels(0).shape == (8, 8, 3)
    assert open_images(tmp_path / "recipe.yaml", 6).pixels(0).shape == (6, 6, 3)
    for text, match in (
        ("a: 1", "has no part data"),
        ("[", "is not YAML"),
        ("data: {resolution: 8}", "train_data_dir"),
    ):
        (tmp_path / "other.yaml").write_text(text)
        with pytest.raises(ConfigError, match=match):
            open_images(tmp_path / "other.yaml")


def test_shards_are_read_as_training_reads_them(measured, tmp_path):
    import tarfile

    fake = measured[0]
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(fake.glob("*.png")):
            archive.add(path, path.name)
    shard, folder = open_images(tmp_path / "shard.tar"), open_images(fake)
    assert len(shard) == len(folder) == 20
    assert all(np.array_equal(shard.pixels(n), folder.pixels(n)) for n in range(20))
