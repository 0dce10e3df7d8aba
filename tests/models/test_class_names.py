"""Components that name their classes, and folders from before they did."""

import json

import pytest
import torch

from latentdiff import ClassEmbedder, ConfigError, SegmentationEncoder

NAMES = ["sky", "sea", "sand"]
PALETTE = [[0, 0, 255], [0, 128, 128], [255, 255, 0]]


def test_names_and_palette_are_saved(tmp_path):
    SegmentationEncoder(in_channels=3, class_names=NAMES, palette=PALETTE).save_pretrained(tmp_path / "maps")
    config = SegmentationEncoder.from_pretrained(tmp_path / "maps").config
    assert list(config["class_names"]) == NAMES and [list(colour) for colour in config["palette"]] == PALETTE
    ClassEmbedder(num_classes=4, embed_dim=8, null_class=3, class_names=NAMES).save_pretrained(tmp_path / "classes")
    assert list(ClassEmbedder.from_pretrained(tmp_path / "classes").config["class_names"]) == NAMES


def test_folders_without_names_load(tmp_path):
    for component in (SegmentationEncoder(in_channels=3), ClassEmbedder(num_classes=3, embed_dim=8)):
        folder = tmp_path / type(component).__name__
        component.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        assert config.pop("class_names") is None
        config.pop("palette", None)
        (folder / "config.json").write_text(json.dumps(config))
        again = type(component).from_pretrained(folder)
        assert again.config["class_names"] is None
        assert all(torch.equal(a, b) for a, b in zip(component.parameters(), again.parameters(), strict=True))


def test_names_are_one_for_each_label():
    ClassEmbedder(num_classes=3, class_names=NAMES)
    ClassEmbedder(num_classes=3, null_class=0, class_names=["none", "sea", "sand"])
    with pytest.raises(ConfigError, match="class_names has 3 names for 4 classes"):
        ClassEmbedder(num_classes=4, class_names=NAMES)
    with pytest.raises(ConfigError, match="class_names has 3 names for 4 classes"):
        ClassEmbedder(num_classes=4, null_class=0, class_names=NAMES)
    with pytest.raises(ConfigError, match="class_names has 3 names for 4 classes"):
        SegmentationEncoder(in_channels=4, class_names=NAMES)


@pytest.mark.parametrize("palette", [PALETTE[:2], [*PALETTE, [1, 1, 1]], [[0, 0, 0]] * 3, [[0, 0]] * 3, "red", []])
def test_bad_palettes(palette):
    with pytest.raises(ConfigError, match=r"palette|colour|class 3"):
        SegmentationEncoder(in_channels=3, palette=palette)
