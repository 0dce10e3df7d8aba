"""What `latentdiff init` proposes for which images and machines, and the recipes that it writes."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from latentdiff.errors import ConfigError, InputError
from latentdiff.training.first_stage.options import FirstStageDataOptions
from latentdiff.training.start.commented import commented_yaml
from latentdiff.training.start.files import free_places, name_of, write_new
from latentdiff.training.start.machine import Machine
from latentdiff.training.start.presets import BY_NAME, PRESETS, fitting_preset, preset_called
from latentdiff.training.start.recipes import in_looks, make_plan
from latentdiff.training.start.survey import survey

CPU = Machine("cpu", 16.0, bfloat16=False)
GPU = Machine("cuda", 80.0, bfloat16=True)


def images(folder, count=16, size=(40, 36), **row):
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", size, (i * 10 % 256, 0, 0)).save(folder / f"{i:02d}.png")
    if row:
        rows = [
            {"file_name": f"{i:02d}.png", **{k: v(i) if callable(v) else v for k, v in row.items()}}
            for i in range(count)
        ]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def look(folder, **options):
    return survey(FirstStageDataOptions(train_data_dir=str(folder), **options))


def plan(folder, preset="tiny", machine=CPU, task=None, **options):
    return make_plan("x", look(folder, **options), preset_called(preset), machine, task)


@pytest.mark.parametrize(
    ("count", "memory", "accelerator", "name"),
    [
        (1, 1, False, "tiny"),
        (1999, 80, True, "tiny"),
        (2000, 80, True, "small"),
        (9999, 80, True, "small"),
        (10_000, 80, True, "base"),
        (25_000, 80, True, "paper"),
        (10**6, 80, False, "tiny"),
        (10**6, 0.01, True, "tiny"),
    ],
)
def test_the_size_follows_from_images_and_machine(count, memory, accelerator, name):
    assert fitting_preset(count, memory, accelerator).name == name


def test_less_memory_is_a_smaller_size_or_a_smaller_batch():
    names = [preset.name for preset in PRESETS]
    found = [names.index(fitting_preset(10**6, memory, True).name) for memory in (0.5, 2, 8, 24, 80)]
    assert found == sorted(found) and found[-1] == len(names) - 1
    for preset in PRESETS:
        for stage in (preset.first_stage, preset.diffusion):
            sizes = [stage.micro_batch(memory, 1.0) for memory in (0.01, 4, 8, 16, 32, 64, 4096)]
            assert sizes == sorted(sizes) and sizes[0] == 0 and sizes[-1] == stage.batch
            assert all(stage.batch % size == 0 for size in sizes if size)
            fits = next(memory for memory in range(1, 4096) if stage.micro_batch(memory, 1.0) == stage.batch)
            assert stage.micro_batch(fits, 4.0) < stage.batch or fits == 1


@pytest.mark.parametrize("preset", BY_NAME)
@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_recipes_are_recipes_and_the_second_goes_on_from_the_first(tmp_path, preset, machine):
    made = plan(images(tmp_path / "photos", size=(600, 300)), preset, machine)
    first, second = made.first_stage, made.diffusion
    assert second.vae == f"{first.output_dir}/vae" and first.data.resolution == second.data.resolution
    assert first.data.resolution == BY_NAME[preset].resolution
    assert first.mixed_precision == second.mixed_precision == ("bf16" if machine.bfloat16 else "no")
    for recipe, stage in ((first, BY_NAME[preset].first_stage), (second, BY_NAME[preset].diffusion)):
        assert recipe.train_batch_size * recipe.gradient_accumulation_steps == stage.batch
        assert recipe.max_train_steps % recipe.validation.steps == 0
    assert first.validation.share * 16 >= 2


KNOWN = {
    "text-to-image": {"text": "a dog"},
    "layout-to-image": {"objects": [{"class": "cat", "box": [0, 0, 20, 20]}]},
    "class-to-image": {"label": lambda i: "ab"[i % 2]},
    "unconditional": {},
}


@pytest.mark.parametrize("task", KNOWN)
def test_what_is_known_of_the_images_becomes_the_condition(tmp_path, task):
    folder = images(tmp_path / "photos", **KNOWN[task])
    found = plan(folder)
    assert found.diffusion.conditioning.type == task and found.diffusion.data.resolution == 32
    assert plan(folder, task="inpaint").diffusion.conditioning.type == "inpaint"
    other = next(name for name in KNOWN if name not in (task, "unconditional"))
    with pytest.raises(ConfigError, match=f"task is '{other}', but nothing of that kind is known of the images"):
        plan(folder, task=other)


def test_the_first_of_several_conditions_is_taken_and_the_others_are_told(tmp_path):
    folder = images(tmp_path / "photos", text="a dog", label=lambda i: "ab"[i % 2])
    made = plan(folder)
    assert made.task == "text-to-image"
    line = next(line for line in made.texts()[1].splitlines() if "type: text-to-image" in line)
    assert "# these images would do for class-to-image, unconditional" in line
    assert plan(folder, task="class-to-image").diffusion.conditioning.class_embedder == {"embed_dim": 128}


def test_maps_become_a_condition(tmp_path):
    folder, maps = images(tmp_path / "photos"), tmp_path / "maps"
    maps.mkdir()
    for i in range(16):
        Image.fromarray(np.tile(np.arange(36, dtype=np.uint8)[:, None] // 20, (1, 40))).save(maps / f"{i:02d}.png")
    made = plan(folder, label_maps=str(maps))
    assert made.task == "semantic-to-image" and made.diffusion.data.label_maps == str(maps)
    assert made.first_stage.data.label_maps == str(maps)


@pytest.mark.parametrize(("count", "task"), [(8, "unconditional"), (4, "class-to-image")])
def test_classes_of_few_images_are_no_condition(tmp_path, count, task):
    found = look(images(tmp_path / "photos", label=lambda i: f"class {i % count}"))
    assert found.tasks[0] == task
    assert any("too many to be learned" in fact for fact in found.facts) == (task == "unconditional")


@pytest.mark.parametrize(
    ("side", "resolution"), [(15, 16), (16, 16), (31, 16), (32, 32), (63, 32), (64, 64), (400, 64)]
)
def test_the_resolution_is_what_the_images_fill(tmp_path, side, resolution):
    assert plan(images(tmp_path / "photos", size=(side + 9, side))).resolution == resolution


@pytest.mark.parametrize(
    ("side", "crop", "smallest"),
    [(64, "centre", None), (65, "random", 0.99), (80, "random", 0.8), (400, "random", 0.5)],
)
def test_images_larger_than_the_resolution_are_seen_in_parts(tmp_path, side, crop, smallest):
    made = plan(images(tmp_path / "photos", size=(side + 9, side)))
    for recipe in (made.first_stage, made.diffusion):
        assert recipe.data.resolution == 64 and recipe.data.crop == crop
        assert recipe.data.min_crop == smallest if smallest else not recipe.data.given("min_crop")
    for given in ({"crop": "centre"}, {"crop": "grid"}, {"buckets": {"multiple": 16}}):
        kept = plan(tmp_path / "photos", **given).diffusion.data
        assert kept.crop == given.get("crop", "centre") and not kept.given("min_crop")
    assert made.first_stage.report is not None and "report: {}  # at the end" in made.texts()[0]


@pytest.mark.parametrize("resolution", [48, 200])
def test_a_resolution_that_is_given_is_kept(tmp_path, resolution):
    made = plan(images(tmp_path / "photos"), resolution=resolution - resolution % 16)
    assert made.resolution == resolution - resolution % 16
    with pytest.raises(ConfigError, match="resolution is 40; 'tiny' networks take multiples of 16 from 16 to 1024"):
        plan(tmp_path / "photos", resolution=40)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (np.uint16, (0, 4000), [0.0, 4095.0]),
        (np.uint16, (0, 40000), None),
        (np.int16, (-1000, 2000), [-1000.0, 2000.0]),
        (np.float32, (0.0, 1.0), None),
        (np.float32, (-2.0, 2.0), [-2.0, 2.0]),
        (np.uint8, (0, 100), None),
    ],
)
def test_the_range_of_deep_values_is_looked_up(tmp_path, kind, values, expected):
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(16):
        np.save(folder / f"{i}.npy", np.linspace(*values, 40 * 40 * 2).reshape(40, 40, 2).astype(kind))
    made = plan(folder)
    for text in made.texts():
        assert yaml.safe_load(text)["data"].get("value_range") == expected
    assert made.first_stage.data.channels == 2 and made.diffusion.validation.metrics == []


def test_several_types_of_values_are_an_error(tmp_path):
    folder = images(tmp_path / "scans")
    for i in range(16):
        (folder / f"{i:02d}.png").unlink()
        np.save(folder / f"{i}.npy", np.zeros((8, 8, 1), np.int16 if i % 2 else np.float32))
    with pytest.raises(InputError, match=r"several types \(float32, int16\).*--value_range"):
        look(folder)


def test_too_few_or_unreadable_images_are_an_error(tmp_path):
    few = images(tmp_path / "few", count=15)
    with pytest.raises(InputError, match="holds 15 images, too few"):
        look(few)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        look(tmp_path / "empty")
    folder = images(tmp_path / "photos", count=20)
    for i in range(2):
        (folder / f"{i:02d}.png").write_text("no image")
    assert any("2 can't be used" in fact for fact in look(folder).facts)
    (folder / "02.png").write_text("no image")
    with pytest.raises(InputError, match=r"3 of 20 images that were looked at can't be used, the first is .*00\.png"):
        look(folder)


def test_options_of_the_data_stand_in_both_recipes(tmp_path):
    folder = images(tmp_path / "photos", title="a dog", size=(64, 64))
    made = plan(folder, caption_column="title", random_flip=False, num_workers=2, channels=1)
    assert made.task == "text-to-image"
    for recipe in (made.first_stage, made.diffusion):
        assert (recipe.data.caption_column, recipe.data.random_flip, recipe.data.num_workers) == ("title", False, 2)
    assert made.first_stage.data.channels == 1


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 40), (40, 40), (47, 44), (2000, 2000), (2345, 2320), (410_001, 408_000), (123, 120)]
)
def test_steps_are_round_numbers_with_a_look_at_the_last(steps, expected):
    assert in_looks(steps) == expected


def test_yaml_with_remarks_is_the_yaml_without():
    values = {"a": {"b": [1, 2], "c": {"d": True, "e": {}}}, "f": "yes", "g": 1e-5, "h": None, "i": "a # b"}
    text = commented_yaml(["head"], values, {"a": "one", "a.c.d": "two", "f": "three"})
    assert yaml.safe_load(text) == values
    assert text.splitlines()[:3] == ["# head", "a:  # one", "  b: [1, 2]"]
    assert "    d: true  # two" in text.splitlines()


@pytest.mark.parametrize(
    ("source", "name"),
    [("photos", "photos"), ("a/my photos!", "my-photos"), ("shards/train-*.tar", "train"), ("x.parquet", "x")],
)
def test_names_of_data(source, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_of(source) == name
    assert name_of(".") == tmp_path.name


@pytest.mark.parametrize("taken", ["x-1-first-stage.yaml", "x-2-diffusion.yaml", "runs/x"])
def test_nothing_is_overwritten(tmp_path, monkeypatch, taken):
    monkeypatch.chdir(tmp_path)
    first, second = free_places("x")
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match=f"{taken} exists, and nothing is overwritten; give another --name"):
        free_places("x")
    if taken != "runs/x":
        with pytest.raises(InputError, match=f"cannot write {taken}: File exists"):
            write_new([(first, "one"), (second, "two")])
        assert [path.name for path in tmp_path.iterdir()] == [taken] and (tmp_path / taken).read_text() == "mine"
    with pytest.raises(ConfigError, match="name is 'a/b'; give letters, digits, dots and dashes"):
        free_places("a/b")


def test_recipes_are_short_and_say_why(tmp_path):
    made = plan(images(tmp_path / "photos"))
    for text in made.texts():
        lines = text.splitlines()
        assert len(lines) <= 50 and sum("  # " in line for line in lines) >= 6
        assert max(map(len, lines)) <= 130
