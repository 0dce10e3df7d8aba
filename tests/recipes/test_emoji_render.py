"""Drawing, the data set on disk, and what evaluation reads off images."""

import colorsys
import json

import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="the emoji extra is not installed")

import prepare
from emoji_scenes import sources
from emoji_scenes.colours import BACKGROUNDS, TINTS
from emoji_scenes.grammar import RELATIONS, Scene, Thing
from emoji_scenes.render import compose, tint
from emoji_scenes.scores import background_of, foreground_colour, halves, nearest_colour, render

HUES = {"red": 0, "orange": 28, "yellow": 48, "green": 123, "blue": 220, "purple": 273, "pink": 328, "brown": 25}


@pytest.mark.parametrize("colour", HUES)
def test_tint_has_the_hue_of_its_name_on_every_object(emoji_sprites, colour):
    for sprite in emoji_sprites.values():
        pixels = np.asarray(tint(sprite, colour), dtype=float) / 255
        hue = 360 * colorsys.rgb_to_hls(*np.median(pixels[pixels[..., 3] > 0.9][:, :3], axis=0))[0]
        assert abs((hue - HUES[colour] + 180) % 360 - 180) < 15


def test_tint_keeps_transparency_and_the_order_of_light_and_dark(emoji_sprites):
    before, after = (
        np.asarray(image, dtype=float) for image in (emoji_sprites["key"], tint(emoji_sprites["key"], "blue"))
    )
    assert np.array_equal(before[..., 3], after[..., 3])
    solid = before[..., 3] > 128
    weights = np.array([0.299, 0.587, 0.114])
    old, new = (image[solid][:, :3] @ weights for image in (before, after))
    assert np.corrcoef(old, new)[0, 1] > 0.8


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_background_is_read_off_the_border(emoji_sprites, background):
    image = render(Scene("background", (Thing("star"),), background), emoji_sprites, 64)
    assert image.shape == (64, 64, 3)
    assert background_of(image) == background


@pytest.mark.parametrize("colour", TINTS)
def test_object_colour_is_told_apart(emoji_sprites, colour):
    scenes = {c: Scene("colour", (Thing("apple", c),), "gray") for c in TINTS}
    table = {c: foreground_colour(render(scene, emoji_sprites, 64), "gray") for c, scene in scenes.items()}
    assert nearest_colour(table[colour], table) == colour


@pytest.mark.parametrize("relation", RELATIONS)
def test_halves_hold_the_objects_in_the_order_of_the_prompt(emoji_sprites, relation):
    scene = Scene("pair", (Thing("apple"), Thing("key")), relation=relation)
    turned = Scene("pair", (Thing("apple"), Thing("key")), relation="left of")
    cut, reference = (halves(render(s, emoji_sprites, 64), str(s.relation)) for s in (scene, turned))
    for a, b in zip(cut, reference, strict=True):
        assert a.shape == (32, 32, 3)
        assert np.abs(a - b).max() < 0.01


def test_an_object_may_stick_out_of_the_frame(emoji_sprites):
    scene = Scene("place", (Thing("star"),), size="big", jitter=((-0.1, -0.1, 1.0),))
    assert compose(scene, emoji_sprites, 32).size == (32, 32)


@pytest.fixture
def prepared(monkeypatch, tmp_path, emoji_bodies):
    monkeypatch.setattr(sources, "svg_bodies", lambda folder, items: emoji_bodies)

    def run(name: str, workers: int):
        settings = {"num_images": 40, "num_validation": 5, "resolution": 32, "seed": 3, "workers": workers}
        prepare.prepare(tmp_path / name, work=tmp_path, objects="all", **settings)
        return tmp_path / name

    return run


@pytest.mark.thorough
def test_data_set_does_not_depend_on_the_number_of_processes(prepared):
    first, second = prepared("a", 1), prepared("b", 2)
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 40 + 5 + 2 + 1
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()
    rows = [json.loads(line) for line in (first / "train" / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == [f"{i:06d}.png" for i in range(40)]
    assert set(rows[0]) >= {"text", "objects", "colours", "background", "size", "position", "relation"}


def test_an_existing_folder_is_left_alone_and_a_broken_run_leaves_none(prepared, monkeypatch, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError, match="taken"):
        prepared("taken", 1)
    monkeypatch.setattr(prepare, "MAX_TOKENS", 2)
    with pytest.raises(ValueError, match="tokens"):
        prepared("broken", 1)
    assert not (tmp_path / "broken").exists()
