"""Images against their originals: scikit-image's numbers, pairs by name, masks by share."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_features import SmallFeatures

from latentdiff import CheckpointError, InputError
from latentdiff.evaluation.metrics import ms_ssim
from latentdiff.evaluation.pairs import Perceptual, evaluate_pairs
from latentdiff.evaluation.samples import evaluate_samples
from latentdiff.models.lpips import PerceptualDistance


def make(folder, count, size=(24, 20), noise=0, suffix="png"):
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size[::-1])
        moved = np.asarray(small) + noise * (number + 1) * np.random.default_rng(9).normal(size=(*size, 3))
        Image.fromarray(moved.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03d}.{suffix}")
    return folder


def found(report):
    return {result.name: (result.value, result.std) for result in report.results}


def test_numbers_are_those_of_scikit_image(tmp_path):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = make(tmp_path / "a", 5, noise=5), make(tmp_path / "b", 5)
    pairs = [[np.asarray(Image.open(side / f"{n:03d}.png")) for side in (a, b)] for n in range(5)]
    psnr = [metrics.peak_signal_noise_ratio(y, x, data_range=255) for x, y in pairs]
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    ssim = [metrics.structural_similarity(y, x, data_range=255, **how) for x, y in pairs]
    values = found(evaluate_pairs(a, b))
    assert values.keys() == {"psnr[5, b]", "ssim[5, b]"}
    assert values["psnr[5, b]"] == pytest.approx((np.mean(psnr), np.std(psnr)), rel=1e-6)
    assert values["ssim[5, b]"] == pytest.approx((np.mean(ssim), np.std(ssim)), rel=1e-5)


def test_ms_ssim_is_its_definition_scale_by_scale():
    """The product over five scales of contrast and structure, and of the luminance at the coarsest."""
    metrics = pytest.importorskip("skimage.metrics")
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(1, 1, 176, 180, generator=rng, dtype=torch.float64)
    b = (a + 0.2 * torch.randn(a.shape, generator=rng, dtype=torch.float64)).clamp(0, 1)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    product, x, y = 1.0, a, b
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        p, q = x[0, 0].numpy(), y[0, 0].numpy()
        if scale == 4:
            value = metrics.structural_similarity(p, q, **how)
        else:  # SSIM without its luminance, whose constant K1 is made so large that it is 1
            value = metrics.structural_similarity(p, q, K1=1e8, **how)
        product *= value**weight
        x, y = (torch.nn.functional.avg_pool2d(image, 2) for image in (x, y))
    assert float(ms_ssim(a, b)) == pytest.approx(product, rel=1e-9)
    assert float(ms_ssim(a, a)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("side", "ok"), [(175, False), (176, True), (177, True)])
def test_ms_ssim_needs_its_windows_at_every_scale(side, ok):
    images = torch.rand(1, 3, side, 180)
    if ok:
        assert ms_ssim(images, images).item() == pytest.approx(1)
    else:
        with pytest.raises(InputError, match="at least 176"):
            ms_ssim(images, images)


def test_files_of_equal_names_are_pairs_whatever_their_suffix(tmp_path):
    a, b = make(tmp_path / "a", 3), make(tmp_path / "b", 3, suffix="bmp")
    assert found(evaluate_pairs(a, b, metrics=["psnr"])) == {"psnr[3, b]": (np.inf, None)}


def test_images_that_are_no_pairs_are_one_line(tmp_path):
    a = make(tmp_path / "a", 3)
    make(tmp_path / "more", 4), make(tmp_path / "other", 2), make(tmp_path / "size", 3, size=(20, 20))
    Image.new("RGB", (20, 24)).save(tmp_path / "other" / "named.png")
    for originals, match in (
        ("more", "has 3 images, .*more 4; pairs need as many of both"),
        ("other", "other has no 002, of which .*a has an image"),
        ("size", "image 0 of .* and its original are 20x24 and 20x20"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            evaluate_pairs(a, tmp_path / originals)
        assert "\n" not in str(caught.value)
    one, broken = make(tmp_path / "one", 1), make(tmp_path / "broken", 3)
    (broken / "001.png").write_bytes(b"no image")
    options = {"features": SmallFeatures(is_fid=True), "cache": tmp_path / "c"}
    for images, metrics, match in (
        (one, ["fid"], "fid can't be computed: 1 samples are given, and it needs 2"),
        (broken, ["psnr"], "001.png is not an image of a known kind"),
        (broken, ["fid"], "001.png is not an image of a known kind"),
    ):
        with pytest.raises(InputError, match=match) as caught:
            evaluate_pairs(images, images, metrics=metrics, **options)
        assert "\n" not in str(caught.value)
    assert found(evaluate_pairs(one, one, metrics=["psnr"])) == {"psnr[1, one]": (np.inf, None)}
    with pytest.raises(InputError, match="did you mean 'psnr'"):
        evaluate_pairs(a, a, metrics=["pnsr"])
    with pytest.raises(InputError, match="ms_ssim needs sides of at least 176 pixels, the images have 20"):
        evaluate_pairs(a, a, metrics=["ms_ssim"])


def test_numbers_by_the_share_that_is_masked(tmp_path):
    a, b = make(tmp_path / "a", 4, noise=5), make(tmp_path / "b", 4)
    (tmp_path / "masks").mkdir()
    for number, rows in enumerate((2, 10, 12, 13)):  # of 24: 8, 42, 50 and 54 %
        mask = np.zeros((24, 20), np.uint8)
        mask[:rows] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number:03d}.png")
    values = found(evaluate_pairs(a, b, masks=tmp_path / "masks", metrics=["psnr"]))
    single = [evaluate_pairs(a, b, metrics=["psnr"])]
    assert values["psnr[4, b, all]"] == (single[0].results[0].value, single[0].results[0].std)
    each = []
    for number in (1, 2):
        for side in (a, b):
            (tmp_path / f"one{number}" / side.name).mkdir(parents=True)
            image = Image.open(side / f"{number:03d}.png")
            image.save(tmp_path / f"one{number}" / side.name / "x.png")
        folder = tmp_path / f"one{number}"
        each.append(evaluate_pairs(folder / "a", folder / "b", metrics=["psnr"]).results[0].value)
    assert values["psnr[2, b, 40-50 % masked]"][0] == pytest.approx(np.mean(each))


def test_numbers_of_sets_by_the_share_that_is_masked_are_those_of_the_images_alone(tmp_path):
    a, b = make(tmp_path / "a", 14, noise=5), make(tmp_path / "b", 14)
    (tmp_path / "masks").mkdir()
    held = [4, 5, 6, 9, 10, 11, 12, 13]
    for number in range(14):
        mask = np.zeros((24, 20), np.uint8)
        mask[: 11 if number in held else 2] = 255  # of 24: 46 or 8 %
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number:03d}.png")
    options = {"metrics": ["fid", "psnr", "is"], "features": SmallFeatures(is_fid=True), "cache": tmp_path / "c"}
    values = found(evaluate_pairs(a, b, masks=tmp_path / "masks", **options))
    assert list(values) == [
        "psnr[14, b, all]",
        "fid[small, none, 14, b, all]",
        "is[small, none, 14, 10 splits, all]",
        "psnr[8, b, 40-50 % masked]",
        "fid[small, none, 8, b, 40-50 % masked]",
    ]
    whole = evaluate_samples(a, b, **{**options, "metrics": ["fid", "is"]})
    assert values["fid[small, none, 14, b, all]"][0] == whole.value("fid")
    assert values["is[small, none, 14, 10 splits, all]"][0] == whole.value("is")
    for side in (a, b):
        (tmp_path / "some" / side.name).mkdir(parents=True)
        for number in held:
            Image.open(side / f"{number:03d}.png").save(tmp_path / "some" / side.name / f"{number:03d}.png")
    some = evaluate_samples(tmp_path / "some" / "a", tmp_path / "some" / "b", **{**options, "metrics": ["fid"]})
    assert values["fid[small, none, 8, b, 40-50 % masked]"][0] == pytest.approx(some.value("fid"), rel=1e-4)
    notes = evaluate_pairs(a, b, masks=tmp_path / "masks", **options).notes
    assert notes == ["is of 40-50 % masked left out: 8 are too few"]


def test_numbers_of_sets_need_the_features_that_they_are_named_after(tmp_path):
    a = make(tmp_path / "a", 3)
    with pytest.raises(InputError, match="the features are small; fid and sfid are of the published Inception's"):
        evaluate_pairs(a, a, metrics=["fid"], features=SmallFeatures(), cache=tmp_path)
    with pytest.raises(InputError, match="unknown metric 'fdi' of pairs; did you mean 'fid'"):
        evaluate_pairs(a, a, metrics=["fdi"])


def test_masks_that_do_not_belong_are_one_line(tmp_path):
    a = make(tmp_path / "a", 2)
    (tmp_path / "masks").mkdir()
    Image.new("L", (20, 24)).save(tmp_path / "masks" / "000.png")
    with pytest.raises(InputError, match=r"1 of 2 images have no mask in .*, the first is 001"):
        evaluate_pairs(a, a, masks=tmp_path / "masks")
    Image.new("L", (20, 23)).save(tmp_path / "masks" / "001.png")
    with pytest.raises(InputError, match="is 20x23 pixels, the image 20x24"):
        evaluate_pairs(a, a, masks=tmp_path / "masks", metrics=["psnr"])
    Image.new("L", (20, 24)).save(tmp_path / "masks" / "001.png")
    report = evaluate_pairs(a, a, masks=tmp_path / "masks", metrics=["psnr"])
    assert "40-50 % masked left out: no mask covers so much" in report.notes


@pytest.mark.thorough
def test_perceptual_distances_are_those_of_the_networks(tmp_path):
    a, b = make(tmp_path / "a", 2, noise=9), make(tmp_path / "b", 2)
    torch.manual_seed(0)
    trunk = {f"features.{name}": value for name, value in PerceptualDistance().features.state_dict().items()}
    widths = (64, 128, 256, 512, 512)
    heads = {f"lin{stage}.model.1.weight": torch.rand(1, width, 1, 1) for stage, width in enumerate(widths)}
    torch.save(trunk, tmp_path / "vgg16.pth")
    torch.save(heads, tmp_path / "heads.pth")
    files = Perceptual(str(tmp_path / "vgg16.pth"), str(tmp_path / "heads.pth"))
    values = found(evaluate_pairs(a, b, metrics=["psim", "lpips"], perceptual=files))
    network, weights = PerceptualDistance.from_file(tmp_path / "vgg16.pth"), list(heads.values())
    plain, weighted = [], []
    for number in range(2):
        x, y = (
            torch.from_numpy(np.array(Image.open(side / f"{number:03d}.png"))).permute(2, 0, 1)[None] / 127.5 - 1
            for side in (a, b)
        )
        squares = [(p - q).square() for p, q in zip(network._stages(x), network._stages(y), strict=True)]
        plain.append(sum(float(square.sum(1).mean()) for square in squares))
        weighted.append(sum(float((square * w).sum(1).mean()) for square, w in zip(squares, weights, strict=True)))
    assert values["psim[2, b]"] == pytest.approx((np.mean(plain), np.std(plain)), rel=1e-4)
    assert values["lpips[2, b]"] == pytest.approx((np.mean(weighted), np.std(weighted)), rel=1e-4)


def test_missing_perceptual_weights_are_a_note_or_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    a = make(tmp_path / "a", 2)
    notes = " ".join(evaluate_pairs(a, a).notes)
    assert "lpips left out" in notes and "psim left out: PSIM needs torchvision's vgg16-397923af.pth" in notes
    with pytest.raises(CheckpointError, match=r"SHA-256 begins with 397923af; put it into .*checkpoints"):
        evaluate_pairs(a, a, metrics=["psim"])
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"other")
    with pytest.raises(CheckpointError, match="not 397923af"):
        evaluate_pairs(a, a, metrics=["psim"])
