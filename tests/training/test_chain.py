"""Several recipes as one training: their order, what doesn't go together, and how far each has come."""

import json

import pytest
import toy

from latentdiff.config import from_mapping
from latentdiff.errors import ConfigError, InputError
from latentdiff.training.chain import found, in_order, state_of, table
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe

DATA = {"train_data_dir": "images", "resolution": 16}


def first(output="runs/a", **options):
    return from_mapping(FirstStageRecipe, {"output_dir": output, "data": DATA, "model": {}, **options})


def second(vae="runs/a/vae", output="runs/b", **options):
    values = {"output_dir": output, "data": DATA, "vae": vae, "unet": {"sample_size": 1}, **options}
    return from_mapping(DiffusionRecipe, values)


def third(pipeline="runs/b/pipeline", output="runs/c"):
    values = {"output_dir": output, "data": DATA, "pretrained_model_name_or_path": pipeline}
    return from_mapping(ClassifierRecipe, values)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_each_comes_after_what_it_starts_from():
    recipes = {"3": third(), "2": second(), "1": first()}
    assert list(in_order(recipes)) == ["1", "2", "3"]
    assert list(in_order(dict(reversed(recipes.items())))) == ["1", "2", "3"]
    refined = first("runs/r", model={"pretrained_model_name_or_path": "runs/a/vae"})
    assert list(in_order({"2": second("runs/r/vae"), "r": refined, "1": first()})) == ["1", "r", "2"]
    tuned = {"pretrained_model_name_or_path": "runs/b/pipeline", "unet": {}}
    distilled = second(None, "runs/d", **tuned, distill={"teacher": "runs/t/pipeline"})
    more = {"d": distilled, "t": second(None, "runs/t", **tuned), "2": second(), "1": first()}
    assert in_order(more) == {"1": [], "2": ["1"], "t": ["2"], "d": ["2", "t"]}
    other = second("runs/r/vae", "runs/o", **tuned)  # another's networks in the latents of another first stage
    assert in_order({"o": other, "r": refined, "2": second(), "1": first()})["o"] == ["2", "r"]


def test_an_adapter_is_no_model_to_start_from():
    adapter = {"pretrained_model_name_or_path": "runs/b/pipeline", "unet": {}}
    ends = {merge: second(None, "runs/l", **adapter, lora={"rank": 2, "merge": merge}) for merge in (False, True)}
    recipes = {"3": third("runs/l/pipeline"), "2": second(), "1": first()}
    assert list(in_order({**recipes, "l": ends[True]})) == ["1", "2", "l", "3"]
    with pytest.raises(ConfigError, match=r"3: pretrained_.* is runs/l/pipeline, but l makes an adapter and no model"):
        in_order({**recipes, "l": ends[False]})


def test_what_needs_nothing_of_the_others_stays_where_it_is(tmp_path):
    (tmp_path / "vae").mkdir()
    assert list(in_order({"b": second("vae", "runs/b"), "a": second("vae", "runs/a")})) == ["b", "a"]
    assert list(in_order({"b": first("runs/b"), "a": first("runs/a")})) == ["b", "a"]
    assert list(in_order({"b": second("owner/name", "runs/b")})) == ["b"]


def test_recipes_of_different_first_stages_are_an_error(tmp_path):
    (tmp_path / "other").mkdir()
    for vae in ("runs/x/vae", "other"):
        with pytest.raises(ConfigError, match=rf"^2 is for the first stage {vae}, and 1 makes runs/a/vae;"):
            in_order({"1": first(), "2": second(vae)})
    with pytest.raises(InputError, match=r"^2: vae is runs/a/vae, which isn't there; give the recipe that makes it"):
        in_order({"2": second()})
    with pytest.raises(InputError, match=r"^3: pretrained_model_name_or_path is runs/b/pipeline, which isn't there"):
        in_order({"3": third()})


def test_one_folder_for_two_runs_is_an_error():
    with pytest.raises(ConfigError, match="1 and 2 both have the output_dir runs/a"):
        in_order({"1": first(), "2": second(output="runs/a")})


def test_a_circle_is_an_error():
    one = first("runs/a", model={"pretrained_model_name_or_path": "runs/b/vae"})
    other = first("runs/b", model={"pretrained_model_name_or_path": "runs/a/vae"})
    with pytest.raises(ConfigError, match="1 and 2 need each other's results"):
        in_order({"1": one, "2": other})


def test_another_range_of_values_is_an_error():
    deep = {**DATA, "value_range": [0, 4095]}
    assert list(in_order({"1": first(data=deep), "2": second(data=deep)})) == ["1", "2"]
    with pytest.raises(ConfigError, match=r"data.value_range is None in 2, and \(0\.0, 4095\.0\) in 1"):
        in_order({"1": first(data=deep), "2": second()})


def test_how_far_a_run_has_come(tmp_path):
    recipe = first(max_train_steps=10)
    assert state_of("1", recipe) == "new"
    point = tmp_path / "runs/a/checkpoint-9"
    point.mkdir(parents=True)
    (point / "manifest.json").write_text("{}")
    assert state_of("1", recipe) == "begun"
    (tmp_path / "runs/a/vae").mkdir()
    (tmp_path / "runs/a/vae/config.json").write_text("{}")
    assert state_of("1", recipe) == "begun"  # with the result of fewer steps
    point.rename(tmp_path / "runs/a/checkpoint-10")
    assert state_of("1", recipe) == "finished"
    assert state_of("1", recipe.replace(max_train_steps=11)) == "begun"
    assert state_of("1", recipe.replace(overwrite_output_dir=True)) == "new"
    (tmp_path / "runs/a/checkpoint-10/manifest.json").unlink()
    (tmp_path / "runs/a/checkpoint-10").rmdir()
    assert state_of("1", recipe) == "finished"  # somebody has made room


def test_a_finished_run_of_another_recipe_is_an_error(data, tmp_path):
    options = {"output_dir": str(tmp_path / "out"), "data": {"train_data_dir": str(data), "resolution": 16}}
    options |= {"model": toy.VAE, "max_train_steps": 1, "train_batch_size": 2, "report_to": "none"}
    from latentdiff.training.first_stage.task import train_first_stage

    recipe = from_mapping(FirstStageRecipe, options)
    train_first_stage(recipe)
    assert state_of("1", recipe) == "finished"
    assert state_of("1", recipe.replace(train_batch_size=1, gradient_accumulation_steps=2)) == "finished"
    with pytest.raises(ConfigError, match="was made with another recipe: seed is 1, was 0; use its recipe"):
        state_of("1", recipe.replace(seed=1))


def test_the_table_has_the_last_look_of_each_run(tmp_path):
    folder = tmp_path / "runs/a"
    (folder / "validation").mkdir(parents=True)
    lines = [
        {"step": 5, "validation/psnr": 1.0, "validation/best_step": 5},
        {"step": 10, "loss": 1.0},
        {"step": 10.0, "validation/psnr": 23.45678, "validation/best_step": 10, "validation/without_gain": 0},
        {"step": 12, "loss": 1.0},
    ]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for step in (5, 10):
        (folder / f"validation/reconstructions-{step}.png").write_bytes(b"")
    assert list(table([first(), second(conditioning="class-to-image")])) == [
        "| run | step | measured | value |",
        "|---|---|---|---|",
        "| runs/a | 10 | psnr | 23.46 |",
        "picture: runs/a/validation/reconstructions-10.png",
        "next: latentdiff class 0-3 --model runs/b -o images",
    ]
    assert found(second()) == (0, {}, [])
    (folder / "report.md").write_text("")
    assert "report: runs/a/report.md" in list(table([first()]))
