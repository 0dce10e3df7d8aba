"""The paper's tables run end to end with tiny models of random weights, and say what they lack."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image
from small_features import SmallFeatures

from latentdiff.evaluation.protocols import PRESETS
from latentdiff.registry import FEATURE_EXTRACTORS

SCRIPT = Path(__file__).parents[2] / "scripts" / "paper_tables.py"
spec = importlib.util.spec_from_file_location("paper_tables", SCRIPT)
paper_tables = importlib.util.module_from_spec(spec)
sys.modules["paper_tables"] = paper_tables  # where its dataclass looks for itself
spec.loader.exec_module(paper_tables)

MODELS = {
    "celeba256": tiny.tiny_unconditional,
    "text2img256": tiny.tiny_text_to_image,
    "cin256-v2": tiny.tiny_class_to_image,
    "bsr_sr": tiny.tiny_super_resolution,
    "inpainting_big": tiny.tiny_inpaint,
    "kl-f8": tiny.tiny_unconditional,
    "layout2img-coco256": tiny.tiny_layout_to_image,
}


def write_images(folder, side, **columns):
    folder.mkdir()
    rng = np.random.default_rng(side)
    lines = []
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        lines.append({"file_name": f"{number}.png", **columns})
    if columns:
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return str(folder)


@pytest.mark.thorough
def test_a_row_of_each_kind_is_run_and_stands_beside_the_paper(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FEATURE_EXTRACTORS._entries, "small", SmallFeatures)
    monkeypatch.chdir(tmp_path)
    photos = write_images(tmp_path / "photos", 16)
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(5):
        mask = np.zeros((16, 16), np.uint8)
        mask[: 7 if number else 2] = 255  # 44 or 13 %
        Image.fromarray(mask).save(masks / f"{number}.png")
    objects = [{"class": "dog", "box": [0, 0, 8, 8]}]
    (tmp_path / "coco.yaml").write_text("data: {train_data_dir: layouts, resolution: 16}")
    write_images(tmp_path / "layouts", 20, objects=objects)
    content = {
        "models": {name: str(make(tmp_path / name)) for name, make in MODELS.items() if not (tmp_path / name).mkdir()},
        "data": {
            "celebahq_train": photos,
            "imagenet_train": photos,
            "coco_captions_val": write_images(tmp_path / "captions", 16, text="a red apple"),
            "imagenet_val": photos,
            "imagenet_val_small": write_images(tmp_path / "small", 8),
            "places_test": photos,
            "places_test_masks": str(masks),
            "coco_layouts_val": "coco.yaml",
        },
        "options": {name: ["--steps", 1] for name in MODELS if name != "kl-f8"},
        "paper": {"celeba256": {"frechet": 1.25}},
    }
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(content))
    trial = ["--count", "4", "--features", "small", "--cache", "cache"]
    trial += ["--leave-out", "is", "sfid", "lpips", "psim"]
    assert paper_tables.run(["map.yaml", *trial, "--markdown", "table.md"]) == 0
    table = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out == table
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    ours = {(table, model, name): (float(value), paper) for table, model, name, value, paper in lines if value}
    suffix = "small, none"
    assert [key for key in ours if "precision" not in key[2] and "recall" not in key[2]] == [
        ("1", "celeba256", f"frechet[{suffix}, 4, photos]"),
        ("2", "text2img256", f"frechet[{suffix}, 4, captions]"),
        ("3, 10", "cin256-v2", f"frechet[{suffix}, 4, photos]"),
        ("5, 11", "bsr_sr", "psnr[5, photos]"),
        ("5, 11", "bsr_sr", "ssim[5, photos]"),
        ("5, 11", "bsr_sr", f"frechet[{suffix}, 5, photos]"),
        ("7", "inpainting_big", f"frechet[{suffix}, 5, photos, all]"),
        ("7", "inpainting_big", f"frechet[{suffix}, 4, photos, 40-50 % masked]"),
        ("8", "kl-f8", f"rfrechet[{suffix}, 4, photos]"),
        ("8", "kl-f8", "psnr[4, photos]"),
        ("8", "kl-f8", "ssim[4, photos]"),
        ("9", "layout2img-coco256", f"frechet[{suffix}, 4, coco]"),
    ]
    assert ours["1", "celeba256", f"frechet[{suffix}, 4, photos]"][1] == "1.25"
    assert {paper for key, (_, paper) in ours.items() if "frechet" not in key[2]} == {"-"}
    assert ["1", "ffhq256", "left out: no model ffhq256, no data ffhq_train", "", ""] in lines


def trial(**options):
    return paper_tables.argparse.Namespace(
        **{"count": None, "features": None, "leave_out": [], "cache": None, "device": None, **options}
    )


def test_without_a_trial_each_row_is_its_preset():
    for row in paper_tables.ROWS:
        places = {name: name for name in ("model", "out", *row.data)}
        *_, evaluate = paper_tables.commands_of(row, places, [], trial())
        assert evaluate[evaluate.index("--preset") + 1] == row.preset
        assert evaluate[:2] == ["evaluate", PRESETS[row.preset].evaluates]
        assert not {"--count", "--metrics", "--features"} & set(evaluate)
        recipe = SCRIPT.parents[1] / "recipes" / "paper" / f"{row.model}.yaml"
        assert recipe.is_file()


def test_words_of_the_user_come_last_and_win(tmp_path):
    row = next(row for row in paper_tables.ROWS if row.model == "celeba256")
    places = {"model": "m", "out": "o", "celebahq_train": "a folder/x"}
    (words,) = paper_tables.commands_of(row, places, ["--steps", 20], trial())
    assert words[-2:] == ["--steps", "20"] and words[3] == "a folder/x"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[", "cannot be read"),
        ("a", "must hold mappings called models, data"),
        ("models: 3", "must hold mappings"),
        ("model: {}", "has 'model'; did you mean 'models'"),
        ("models: {celeba: x}", "has 'celeba' in models; did you mean 'celeba256'"),
        ("data: {imagenet: x}", "has 'imagenet' in data"),
        ("paper: {celeb256: {fid: 1}}", "has 'celeb256' in paper; did you mean 'celeba256'"),
    ],
)
def test_a_wrong_map_is_one_line(tmp_path, capsys, text, match):
    (tmp_path / "map.yaml").write_text(text)
    assert paper_tables.run([str(tmp_path / "map.yaml")]) == 2
    printed = capsys.readouterr()
    assert match in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_a_row_that_fails_is_said_and_the_others_are_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.yaml").write_text(
        "{models: {kl-f4: none, kl-f8: none}, data: {imagenet_val: nothing}, options: {}}"
    )
    assert paper_tables.run(["map.yaml", "--tables", "8"]) == 2
    printed = capsys.readouterr()
    assert [line for line in printed.out.splitlines() if "failed" in line] == [
        "| 8 | kl-f4 | failed, see above | | |",
        "| 8 | kl-f8 | failed, see above | | |",
    ]
    assert printed.err.count("latentdiff: error: ") == 2
