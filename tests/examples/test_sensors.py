"""The examples of images that are no photographs: their drawn data, and both stages at tiny size."""

import importlib
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from latentdiff.training.data import open_to_check
from latentdiff.training.first_stage.options import FirstStageDataOptions


@pytest.fixture(params=["slices", "satellite"])
def example(request):
    return importlib.import_module(request.param)


def first_of(example, folder, count=16):
    """An image folder of the example's data."""
    import both_stages

    drawn = {"slices": "slices", "satellite": "tiles"}[example.__name__]
    return both_stages.write_values(folder, getattr(example, drawn)(0, count))


def test_values_are_in_the_range_that_training_is_told(example, tmp_path):
    folder = first_of(example, tmp_path / "data")
    options = FirstStageDataOptions(train_data_dir=str(folder), resolution=32, value_range=list(example.RANGE))
    images = open_to_check(options)
    channels = 1 if example.__name__ == "slices" else 8
    seen = np.stack([images[place].numpy() for place in range(16)])
    assert images.channels == channels and seen.shape == (16, channels, 32, 32)
    assert -1 <= seen.min() < -0.95 and 0.5 < seen.max() <= 1
    assert (seen == 1).mean() < 0.01  # next to nothing is cut off
    import both_stages

    if channels == 1:
        stored = np.asarray(Image.open(folder / "00003.png"))
        assert stored.dtype == np.uint16 and len(np.unique(stored)) > 256
        back = both_stages.values_of((seen[3, 0] + 1) / 2, example.RANGE)
    else:
        stored = np.load(folder / "00003.npy")
        back = both_stages.values_of((seen[3].transpose(1, 2, 0) + 1) / 2, example.RANGE)
    assert np.abs(back - stored.clip(*example.RANGE)).max() < 0.51


def test_what_is_measured_is_found_in_the_drawn_images():
    import slices

    found = [slices.has_nodule(values) for values, _ in slices.slices(9, 40)]
    assert found == [False, True] * 20
    import satellite

    tiles = list(satellite.tiles(9, 4))
    assert np.mean([(satellite.covers(values) == known["label_map"]).mean() for values, known in tiles]) > 0.97
    forest = np.tile(satellite.SPECTRA[1], (2, 2, 1))
    assert satellite.vegetation(forest) == pytest.approx(2700 / 3300)


def test_views_show_windows_and_bands():
    import both_stages

    assert both_stages.shown(np.array([[0, 5, 10, 20]], np.uint16), 5, 10).convert("L").getpixel((0, 0)) == 0
    window = np.asarray(both_stages.shown(np.array([[-76, 674, 1424, 2047]]), -76, 1424).convert("L"))[0, ::4]
    assert window.tolist() == [0, 128, 255, 255]


@pytest.mark.thorough
def test_both_stages_are_trained_sampled_and_measured(example, tmp_path, monkeypatch, capsys):
    import both_stages

    for name in ("FIRST_STAGE", "DIFFUSION"):
        monkeypatch.setattr(both_stages, name, {**getattr(both_stages, name), "train_batch_size": 4})
    example.main(Namespace(work=tmp_path, max_train_steps=2, samples=4), count=16)
    printed = capsys.readouterr().out
    assert f"| {example.__name__} | model | drawn |" in printed and "first stage: PSNR" in printed
    with Image.open(tmp_path / f"{example.__name__}.png") as picture:
        assert picture.size[0] > 4 * 32 * 4


@pytest.mark.thorough
def test_models_of_several_widths_are_put_together_and_drawn(tmp_path, monkeypatch, capsys):
    import both_stages
    import ema_widths

    for name in ("FIRST_STAGE", "DIFFUSION"):
        monkeypatch.setattr(both_stages, name, {**getattr(both_stages, name), "train_batch_size": 4})
    options = Namespace(work=tmp_path, max_train_steps=2, samples=2)
    ema_widths.main(options, count=16, widths=(0.05, 0.1))
    assert "| ema-widths | decay 0.99 | 0.05 | 0.1 | drawn |" in capsys.readouterr().out
    with Image.open(tmp_path / "ema-widths.png") as picture:
        assert picture.size == (ema_widths.WIDTH, ema_widths.HEIGHT)


def test_spectra_are_compared_by_their_angle():
    import ema_widths

    maps = np.array([[0, 1, 2, 3]])
    assert ema_widths.angle(3 * ema_widths.SPECTRA[maps], maps) == pytest.approx(0, abs=1e-4)
    turned = ema_widths.angle(ema_widths.SPECTRA[np.array([[1, 1, 2, 3]])], maps)
    one, other = (ema_widths.SPECTRA[place] / np.linalg.norm(ema_widths.SPECTRA[place]) for place in (0, 1))
    assert turned == pytest.approx(np.degrees(np.arccos(one @ other)) / 4)
