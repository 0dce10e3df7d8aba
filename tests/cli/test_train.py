import json

import pytest
import yaml
from PIL import Image

from latentdiff.cli.commands.train import STAGES
from latentdiff.cli.main import make_app
from latentdiff.config import json_schema, options_of


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for number, colour in enumerate(("red", "green", "blue", "white")):
        Image.new("RGB", (16, 16), colour).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"a {colour} apple"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def recipe(data, tmp_path):
    def write(**options):
        values = {"data": {"train_data_dir": str(data), "resolution": 16}, "output_dir": str(tmp_path / "out")}
        values |= {"train_batch_size": 2, "optimizer": {"learning_rate": "1e-4"}, **options}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "recipe.yaml"

    return write


@pytest.mark.thorough
def test_both_stages(run, recipe, text_model, tmp_path):
    path = recipe(model={"pretrained_model_name_or_path": f"{text_model}/vae"})
    code, out, err = run("train", "first-stage", path, "--max_train_steps", "2", "--output_dir", tmp_path / "first")
    assert (code, out, err) == (0, [str(tmp_path / "first")], [])
    assert run("info", tmp_path / "first" / "vae")[0] == 0
    path = recipe(pretrained_model_name_or_path=text_model, max_train_steps="1e0")
    code, out, err = run("train", "diffusion", path)
    assert (code, out, err) == (0, [str(tmp_path / "out")], [])
    code, _, err = run("generate", "a dog", "--model", tmp_path / "out" / "pipeline", "--steps", 2, "-o", "a.png")
    assert (code, err) == (0, [])


@pytest.mark.thorough
def test_progress_is_lines_where_no_terminal_shows_a_bar(run, recipe, text_model):
    path = recipe(pretrained_model_name_or_path=text_model, max_train_steps=2, logging_steps=1)
    code, _, err = run("train", "diffusion", path, "--report_to", "none")
    assert code == 0 and [line.partition(": loss ")[0] for line in err] == ["step 1 of 2", "step 2 of 2"]
    assert run("train", "diffusion", path, "--report_to", "none", "--output_dir", "b", "--quiet")[2] == []


@pytest.mark.thorough
@pytest.mark.parametrize("stage", STAGES)
def test_dry_run(run, recipe, data, text_model, tmp_path, stage):
    lines = (data / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"label": number} for number, line in enumerate(lines)]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    classifier = {"block_out_channels": [8], "attention_levels": [False], "norm_num_groups": 4, "num_head_channels": 8}
    own = {
        "first-stage": {"model": {"pretrained_model_name_or_path": f"{text_model}/vae"}},
        "diffusion": {"pretrained_model_name_or_path": str(text_model), "validation": {"steps": 1}},
        "classifier": {
            "pretrained_model_name_or_path": str(text_model),
            "classifier": classifier,
        },
    }
    code, out, err = run("train", stage, recipe(**own[stage]), "--dry-run")
    assert (code, err) == (0, [])
    assert [line.partition(":")[0] for line in out] == ["parameters", "memory of a process", "data", "run", "speed"]
    assert not (tmp_path / "out").exists()


def test_quiet(run, recipe, text_model):
    path = recipe(model={"pretrained_model_name_or_path": f"{text_model}/vae"})
    assert run("train", "first-stage", path, "--max_train_steps", "1", "--quiet") == (0, [], [])


@pytest.mark.parametrize(
    ("message", "argv"),
    [
        ("max_train_steps is 'few'; it must be an integer of at least 1", ["--max_train_steps", "few"]),
        ("max_train_steps is 0; it must be at least 1", ["--max_train_steps", "0"]),
        ("data.random_flip is 'maybe'; it must be true or false", ["--data.random_flip", "maybe"]),
        ("optimizer.learning_rate is -1; it must be above 0", ["--optimizer.learning_rate", "-1"]),
        ("mixed_precision is 'fp8'; it must be 'no' or 'bf16' or 'fp16'", ["--mixed_precision", "fp8"]),
        ("did you mean '--max_train_steps'", ["--max_train_step", "3"]),
        ("did you mean '--optimizer.learning_rate'", ["--optimizer.learning_rat", "3"]),
        ("did you mean '--optimizer.learning_rate'", ["--learning_rate", "3"]),
        ("--max_train_steps: it takes 1 value, 0 given", ["--max_train_steps"]),
        ("put values together", ["--max_train_steps", "1", "2"]),
        ("model is '3'; it must be a mapping", ["--model", "3"]),
        ("model is '{'; it must be a mapping", ["--model", "{"]),
        ("data.value_range is '0,1'; it must be a list of 2 numbers or null", ["--data.value_range", "0,1"]),
        ("data.value_range is ['a', 'b']; it must be", ["--data.value_range", '["a", "b"]']),
        ("data.value_range is (1.0, 0.0); the first number must be below", ["--data.value_range", "[1, 0]"]),
        ("model does not fit AutoencoderKL", ["--model", '{"colour": 1}']),
    ],
)
def test_wrong_flags_are_one_line(fails, recipe, message, argv):
    fails(message, "train", "first-stage", recipe(), *argv)


def test_wrong_recipes_are_one_line(fails, recipe, tmp_path):
    fails("nothing.yaml cannot be read", "train", "diffusion", "nothing.yaml")
    fails("vae is missing", "train", "diffusion", recipe())
    fails("unknown option 'colour'", "train", "diffusion", recipe(colour=1))
    (tmp_path / "list.yaml").write_text("- 1\n")
    fails("must be a YAML mapping", "train", "diffusion", "list.yaml")


def test_flags_alone_will_do(run, fails, data, text_model, tmp_path):
    model = json.dumps({"pretrained_model_name_or_path": f"{text_model}/vae"})
    flags = {"data.train_data_dir": data, "output_dir": tmp_path / "out", "data.resolution": 16, "max_train_steps": 1}
    argv = [part for name, value in flags.items() for part in (f"--{name}", value)]
    assert run("train", "first-stage", *argv, "--model", model) == (0, [str(tmp_path / "out")], [])
    fails("options: output_dir is missing; it must be text", "train", "first-stage", "--data.train_data_dir", data)


def test_a_flag_wins_over_the_file_and_dashes_are_underscores(fails, recipe):
    flags = ["--optimizer.learning-rate", "fast"]
    fails("optimizer.learning_rate is 'fast'; it must be a number above 0", "train", "first-stage", recipe(), *flags)


@pytest.mark.parametrize("stage", STAGES)
def test_the_schema_is_that_of_the_recipe(run, stage):
    code, out, err = run("train", stage, "--schema")
    assert (code, json.loads("\n".join(out)), err) == (0, json_schema(STAGES[stage].recipe), [])


def test_the_schema_of_diffusion(run):
    schema = json.loads("\n".join(run("train", "diffusion", "--schema")[1]))
    assert schema["additionalProperties"] is False
    assert {"output_dir", "data", "optimizer", "conditioning", "unet"} <= schema["properties"].keys()
    _, one, several, _ = schema["properties"]["conditioning"]["anyOf"]
    assert len(one["oneOf"]) == 8 and one["discriminator"]["propertyName"] == "type"
    assert len(several["items"]["anyOf"][1]["oneOf"]) == 6, "all but unconditional and hybrid itself"


def test_the_schema_of_all_recipes(run):
    code, out, err = run("train", "--schema")
    assert (code, err) == (0, []) and len(json.loads("\n".join(out))["anyOf"]) == len(STAGES)


def test_the_help_has_the_texts_and_choices(run):
    _, out, _ = run("train", "diffusion", "--help")
    text = " ".join(" ".join(out).replace("│", " ").split())
    assert "--data.box_format xywh|xyxy Format of the objects' boxes" in text
    assert "--checkpoint.steps VALUE Steps between checkpoints. [default: 1000]" in text
    assert "--vae VALUE The trained first stage: its folder, or the name" in text
    wanted = {"--data.box_format": "xywh|xyxy", "--data.random_flip": "true|false", "--unet": "JSON", "--seed": "VALUE"}
    wanted |= {"--data.value_range": "JSON", "--validation.prompts": "JSON", "--data.annotations": "VALUE|JSON"}
    arguments = make_app()["train"]["diffusion"].assemble_argument_collection()
    assert {flag: arguments[flag].parameter.metavar for flag in wanted} == wanted


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_is_a_flag_with_the_text_of_its_class(stage):
    arguments = make_app()["train"][stage].assemble_argument_collection(parse_docstring=True)
    for option in options_of(STAGES[stage].recipe):
        assert option.description and option.description in arguments[f"--{option.name}"].parameter.help
