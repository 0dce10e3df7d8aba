"""The recipes of the built-in models of all tasks, and what their figures are made of."""

import json

import numpy as np
import pytest
from emoji_scenes.folders import read_images, write_images
from emoji_scenes.pixels import error_inside, in_batches, pictures, psnr, sharpness, shuffled

from latentdiff.labels import class_number
from latentdiff.tasks import TASKS


@pytest.fixture(scope="module")
def scenes(emoji_sprites):
    """Ten scenes of the sample's objects: images, layouts and maps."""
    from emoji_scenes.placed import label_map, scattered
    from emoji_scenes.render import compose

    names = list(emoji_sprites)
    drawn = [scattered(np.random.default_rng(seed), names) for seed in range(10)]
    images = np.stack([np.asarray(compose(scene, emoji_sprites, 64)) for scene in drawn]) / 255
    maps = np.stack([np.asarray(label_map(scene, emoji_sprites, names)) for scene in drawn])
    return images, [scene.objects(emoji_sprites) for scene in drawn], maps, names


def test_what_is_drawn_in_a_box_is_seen_there_and_nothing_else(scenes, emoji_sprites):
    from emoji_scenes.seen import in_their_boxes

    images, layouts, _, names = scenes
    assert in_their_boxes(images, layouts, emoji_sprites, names) == 100
    others = [[{**item, "class": names[names.index(item["class"]) - 1]} for item in layout] for layout in layouts]
    assert in_their_boxes(images, others, emoji_sprites, names) == 0
    assert in_their_boxes(np.ones_like(images), layouts, emoji_sprites, names) < 50


def test_overlaps_of_true_images_and_of_those_of_other_scenes(scenes):
    from emoji_scenes.seen import boxes_overlap, maps_overlap

    images, layouts, maps, _ = scenes
    assert maps_overlap(images, maps > 0) > 80
    assert maps_overlap(images, np.roll(maps, 1, 0) > 0) < 40
    assert maps_overlap(np.ones_like(images), maps > 0) == 0
    assert boxes_overlap(images, layouts) > boxes_overlap(images, layouts[1:] + layouts[:1])
    full = np.zeros_like(images)
    for image, layout in zip(full, layouts, strict=True):
        image[:] = 1
        for left, top, width, height in (item["box"] for item in layout):
            image[top : top + height, left : left + width] = 0
    assert boxes_overlap(full, layouts) == 100


def test_errors_of_known_images():
    truth = np.zeros((2, 4, 4, 3))
    images, inside = truth.copy(), np.zeros((2, 4, 4))
    images[:, :2], inside[:, 1:3] = 0.1, 1
    assert error_inside(images, truth, inside) == pytest.approx(255 * np.sqrt(0.01 / 2))
    assert psnr(images, truth) == pytest.approx(-10 * np.log10(0.005))
    stripes = np.tile(np.array([0.0, 1.0]), (1, 4, 2))[..., None].repeat(3, -1)
    assert sharpness(stripes / 2, stripes) == 0.5 and sharpness(stripes, stripes) == 1
    assert sorted(shuffled(range(10))) == [*range(10)] and shuffled(range(10))[0] != 0
    assert in_batches(lambda part, seed: np.full(part.stop - part.start, seed), 5, 2).tolist() == [0, 0, 2, 2, 4]


def test_a_folder_without_label_maps_is_written_and_read(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)) / 255
    folder = write_images(tmp_path / "data", zip(pictures(images), [{"label": "a"}, {"label": "b"}], strict=True))
    rows, read = read_images(folder, 5)
    assert (read == images).all() and [row["label"] for row in rows] == ["a", "b"]
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "metadata.jsonl"]


@pytest.mark.thorough
def test_each_task_has_a_recipe_of_its_share_of_steps_and_a_measure(emoji_sprites):
    from evaluate_tasks import MEASURED
    from train_tasks import SAME_LATENTS, recipe_of
    from train_tasks import TASKS as TRAINED

    assert (
        {*TRAINED} == {*MEASURED} == {spec.builtin.partition("-")[2] for spec in TASKS.values() if spec.builtin} - {""}
    )
    for name in TRAINED:
        whole, part = recipe_of(name, 1.0), recipe_of(name, 0.1)
        assert part.max_train_steps == whole.max_train_steps // 10 and whole.output_dir == f"runs/emoji-{name}"
        assert TASKS[whole.conditioning.type].builtin == f"builtin:emoji-{name}"
        assert whole.vae == "builtin:emoji"
    for name, other in SAME_LATENTS.items():
        assert recipe_of(name, 1.0).data == recipe_of(other, 1.0).data


def test_what_is_drawn_for_training_is_known_and_the_same_for_a_number(emoji_bodies, monkeypatch):
    import prepare_tasks
    from emoji_scenes import catalogue

    names = tuple(emoji_bodies)
    prepare_tasks._keep(emoji_bodies)
    for name in ("FEW", "MANY"):
        monkeypatch.setattr(prepare_tasks, name, names)
    monkeypatch.setattr(catalogue, "core", lambda: dict.fromkeys(names))
    for draw, side in ((prepare_tasks.scene, 64), (prepare_tasks.single, 64), (prepare_tasks.large, 128)):
        (image, known), (again, _), (other, _) = draw(3, 0), draw(3, 0), draw(3, 1)
        assert image.size == (side, side) and image.tobytes() == again.tobytes() != other.tobytes()
        json.dumps({key: value for key, value in known.items() if key != "label_map"})
    assert class_number(prepare_tasks.single(0, 0)[1]["label"], len(names), list(names)) >= 0


def test_the_latent_scale_is_that_of_the_shared_first_stage():
    from train_tasks import recipe_of

    from latentdiff.hub.find import builtin_folder

    config = json.loads((builtin_folder("builtin:emoji", "vae") / "config.json").read_text(encoding="utf-8"))
    assert recipe_of("class", 1.0).latent_scale == config["scaling_factor"]
