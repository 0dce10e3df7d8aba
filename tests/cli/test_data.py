"""`latentdiff data check`: every fault of a folder that has one of each is said, and all else is counted."""

import json
import os

import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.thorough

SIDE, COUNT = 32, 8


@pytest.fixture
def data(tmp_path):
    """Eight images with all that can be known of them, none of it wrong."""
    folder = tmp_path / "data"
    (folder / "maps").mkdir(parents=True)
    rows = []
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE + 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        numbers = np.full((SIDE, SIDE + 16), i % 2, np.uint8)
        numbers[:, 24:] = 255
        Image.fromarray(numbers).save(folder / "maps" / f"{i}.png")
        boxes = [{"class": "cup", "box": [8, 8, 16, 8]}, {"class": "jar", "box": [0, 0, 4, 4]}]
        row = {"file_name": f"{i}.png", "text": "a cup and " * i + "a jar", "label": "ab"[i % 2], "objects": boxes}
        rows.append(row | {"label_map": f"maps/{i}.png"})
    write(folder, rows)
    return folder


def write(folder, rows):
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def check(run, tmp_path, source, *words):
    code, out, err = run("data", "check", source, "-o", tmp_path / "x.png", "--workers", 3, "--json", *words)
    assert not [line for line in err if "error" in line]
    return code, json.loads("\n".join(out))


def test_a_good_folder(run, data, tmp_path):
    code, report = check(run, tmp_path, data, "--resolution", SIDE)
    assert code == 0 and report["images"] == COUNT and report["bad_files"] == [] and report["duplicates"] == []
    spread = {"least": SIDE, "median": SIDE, "most": SIDE}
    wide = {name: value + 16 for name, value in spread.items()}
    assert report["sizes"] == {"height": spread, "width": wide, f"smaller_than_{SIDE}": 0}
    assert report["classes"] == {"a": COUNT // 2, "b": COUNT // 2}
    assert report["captions"] == {
        "number": COUNT,
        "different": COUNT,
        "per_image": {"least": 1, "mean": 1, "most": 1},
        "words": {"least": 2, "mean": 2 + 3 * 3.5, "most": 2 + 3 * 7},
    }
    assert report["objects"] == {
        "number": 2 * COUNT,
        "per_image": {"least": 2, "mean": 2, "most": 2},
        "outside_the_square": COUNT,  # it begins at x 8
        "classes": {"cup": COUNT, "jar": COUNT},
    }
    assert report["label_maps"] == {"share_of_pixels": {"0": 0.25, "1": 0.25}, "ignored": 0.5}


def test_the_picture_shows_boxes_maps_and_captions(run, data, tmp_path):
    check(run, tmp_path, data)
    with_all = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    rows = [{"file_name": row["file_name"], "label_map": row["label_map"]} for row in rows_of(data)]
    write(data, rows)
    check(run, tmp_path, data)
    with_maps = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert with_all.shape[0] > with_maps.shape[0]  # captions take lines
    write(data, [{"file_name": row["file_name"]} for row in rows])
    check(run, tmp_path, data)
    alone = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert with_maps.shape[0] > alone.shape[0]  # as many cells again
    write(data, [{"file_name": row["file_name"], "objects": [{"class": "cup", "box": [0, 0, 48, 32]}]} for row in rows])
    check(run, tmp_path, data)
    assert np.abs(np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int) - alone).max() > 100


def test_every_fault_is_said(run, data, tmp_path):
    rows = rows_of(data)
    (data / "0.png").write_bytes((data / "0.png").read_bytes()[:200])
    (data / "1.png").write_text("no image")
    rows[2]["objects"][0]["box"] = [0, 0, 100, 5]
    rows[3]["objects"][0]["box"] = [0, 0, 0, 5]
    numbers = np.full((SIDE, SIDE + 16), 7, np.uint8)
    Image.fromarray(numbers).save(data / "maps" / "4.png")
    Image.fromarray(numbers[:8] * 0).save(data / "maps" / "5.png")
    (data / "maps" / "6.png").write_bytes(b"")
    (data / "7.png").write_bytes((data / "2.png").read_bytes())
    write(data, rows)
    recipe = {
        "data": {"train_data_dir": str(data), "resolution": SIDE + 1},
        "output_dir": "unused",
        "vae": "unused",
        "unet": {"sample_size": 1},
        "conditioning": {"type": "semantic-to-image", "segmentation_encoder": {"class_names": ["sky", "sea"]}},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, report = check(run, tmp_path, tmp_path / "recipe.yaml")
    assert code == 1 and report["sizes"][f"smaller_than_{SIDE + 1}"] == COUNT - 2
    reasons = {found["file"].removeprefix(f"{data}/"): found["reason"] for found in report["bad_files"]}
    assert sorted(reasons) == ["0.png", "1.png", "2.png", "3.png", "maps/4.png", "maps/5.png", "maps/6.png"]
    for name, reason in {
        "0.png": "cannot be read as an image",
        "1.png": "is not an image of a known kind",
        "2.png": "box of object 0 is (0, 0, 100, 5) as (x, y, width, height), which reaches out of the image",
        "3.png": "which is empty or inverted",
        "maps/4.png": "has the value 7 at x 0, y 0",
        "maps/5.png": "is 48x8 pixels, its image 48x32",
        "maps/6.png": "is not an image of a known kind",
    }.items():
        assert reason in reasons[name]
    assert [[name.removeprefix(f"{data}/") for name in group] for group in report["duplicates"]] == [["2.png", "7.png"]]


def test_the_report_to_read(run, data, tmp_path):
    (data / "1.png").write_text("no image")
    code, out, err = run("data", "check", data, "-o", tmp_path / "x.png")
    assert (code, err) == (1, [])
    assert (
        "images: 8" in out
        and "  width: 48 to 48, median 48" in out
        and "  smaller than 256: 7" in out
        and f"picture: {tmp_path / 'x.png'}" in out
    )
    assert out[-1] == "1 bad files" and any(line.startswith(f"bad: {data}/1.png is not an image") for line in out)


def test_options_are_those_of_recipes(run, data, tmp_path):
    (tmp_path / "boxes.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "3.png", "width": SIDE + 16, "height": SIDE}],
                "categories": [{"id": 1, "name": "pot"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 0, 20, 5]}],
            }
        )
    )
    code, report = check(
        run, tmp_path, data, "--annotations", tmp_path / "boxes.json", "--caption_column", "label", "--resolution", "8"
    )
    assert code == 0 and report["images"] == 1 and report["objects"]["classes"] == {"pot": 1}
    listed = json.dumps([str(tmp_path / "boxes.json")])
    assert check(run, tmp_path, data, "--annotations", listed)[1]["objects"]["classes"] == {"pot": 1}
    assert report["captions"]["words"]["most"] == 1 and "does not have 7 of 8 images" in report["notes"][0]


@pytest.mark.parametrize(
    ("values", "message"), [({255}, "the value 255 alone"), ({0, 255}, "the values 0 and 255 alone"), ({1, 255}, None)]
)
def test_maps_that_would_end_a_run(run, tmp_path, values, message):
    for folder in ("images", "maps"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images/0.png")
    Image.fromarray(np.resize(np.array(sorted(values), np.uint8), (8, 8))).save(tmp_path / "maps/0.png")
    code, report = check(run, tmp_path, tmp_path / "images", "--label-maps", tmp_path / "maps")
    assert code == (message is not None) and len(report["errors"]) == code
    assert message is None or message in report["errors"][0]


def test_how_boxes_are_meant(run, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "1.png")
    meant = {"--box_units=relative": [0.1, 0.1, 0.5, 0.5], "--box_format=xyxy": [40, 40, 60, 60]}
    for flag, box in meant.items():
        row = {"file_name": "1.png", "objects": [{"class": "cat", "box": box}]}
        (tmp_path / "images" / "metadata.jsonl").write_text(json.dumps(row))
        assert check(run, tmp_path, tmp_path / "images", flag)[0] == 0
        assert run("data", "check", tmp_path / "images", "-o", tmp_path / "x.png")[0] != 0


def test_wrong_input(run, data, tmp_path):
    for words, message in {
        (tmp_path / "none",): "is not a folder",
        (data, "-o", "x.jpg"): "--output is x.jpg",
        (data, "--resolution", "big"): "resolution is 'big'",
        (data, "--output_dir", "x"): "unknown argument '--output_dir'",
        (tmp_path / "none.yaml",): "cannot be read",
    }.items():
        code, _, err = run("data", "check", *words)
        assert code == 2 and len(err) == 1 and message in err[0]


def test_what_is_left_out_and_how_many_captions_are_found(run, data, tmp_path):
    code, report = check(run, tmp_path, data)
    assert code == 0 and report["captions"]["number"] == COUNT and report["notes"] == report["ignored"] == []
    for name in ("x.heic", "y.HEIC", "notes.docx", ".thumbs/0.png", "more.png"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes((data / "0.png").read_bytes())
    write(data, [{"file_name": row["file_name"], "prompt": row["text"]} for row in rows_of(data)])
    code, report = check(run, tmp_path, data)
    assert code == 0 and report["captions"] == {"number": 0}
    assert report["notes"] == [
        f"{data}: {COUNT + 1} images are not in metadata.jsonl, left out",  # the maps are images, too
        "2 files .heic are not read, left out; convert them to PNG or JPEG",
        "no captions are known; for one of its columns prompt, give data.caption_column",
    ]
    assert report["ignored"] == ["1 file .docx are no images", f"1 are hidden, the first is {data}/.thumbs"]
    code, out, _ = run("data", "check", data, "-o", tmp_path / "x.png", "--caption_column", "prompt")
    assert code == 0 and f"  number: {COUNT}" in out and "ignored: 1 file .docx are no images" in out


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a star " * 60, "which has 122 tokens where the text encoder takes 77"), ("\u2603", "no word")],
)
def test_captions_that_do_not_fit_are_said(run, data, tmp_path, text, reason):
    """With a recipe they are an error, for a folder alone a note."""
    rows = rows_of(data)
    rows[3]["text"] = text
    write(data, rows)
    recipe = {
        "data": {"train_data_dir": str(data), "resolution": SIDE},
        "output_dir": "unused",
        "vae": "unused",
        "unet": {"sample_size": 1},
        "conditioning": "text-to-image",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, report = check(run, tmp_path, tmp_path / "recipe.yaml")
    (error,) = report["errors"]
    assert code == 1 and "that of 3.png" in error and reason in error
    code, report = check(run, tmp_path, data)
    assert (code, report["errors"], report["notes"]) == (0, [], [error])
    rows[3]["text"] = "a star " * 37  # with two special tokens, 76
    write(data, rows)
    assert check(run, tmp_path, tmp_path / "recipe.yaml")[0] == 0


@pytest.mark.parametrize(
    ("conditioning", "message"),
    [
        ("text-to-image", "has no captions; give 'text' in metadata.jsonl"),
        ("class-to-image", "has no classes; sort the images"),
        ("semantic-to-image", "has no label maps; give 'label_map'"),
        ("layout-to-image", "has no objects; give each image"),
        ("unconditional", None),
    ],
)
def test_what_a_recipe_needs_and_the_data_lack(run, data, tmp_path, conditioning, message):
    write(data, [{"file_name": row["file_name"]} for row in rows_of(data)])
    recipe = {
        "data": {"train_data_dir": str(data), "resolution": SIDE},
        "output_dir": "unused",
        "vae": "unused",
        "unet": {"sample_size": 1},
        "conditioning": conditioning,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    code, report = check(run, tmp_path, tmp_path / "recipe.yaml")
    if message is None:
        assert (code, report["errors"]) == (0, [])
    else:
        (error,) = report["errors"]
        assert code == 1 and message in error


def test_binary_maps_are_an_error(run, data, tmp_path):
    for path in (data / "maps").iterdir():
        numbers = np.zeros((SIDE, SIDE + 16), np.uint8)
        numbers[:, 24:] = 255
        Image.fromarray(numbers).save(path)
    code, report = check(run, tmp_path, data)
    assert code == 1 and "have the values 0 and 255 alone" in report["errors"][0]


@pytest.mark.parametrize("size", [0, 5, 60, 150])
def test_a_damaged_array_is_a_bad_file(run, tmp_path, size):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for i in range(3):
        np.save(folder / f"{i}.npy", np.full((8, 8, 5), i, np.uint8))
    content = (folder / "1.npy").read_bytes()
    (folder / "1.npy").write_bytes(content[:size])
    code, report = check(run, tmp_path, folder, "--value_range", "[0, 5]")
    (found,) = report["bad_files"]
    assert code == 1 and found["file"].endswith("1.npy") and report["images"] == 3


def test_names_of_any_bytes_are_said(run, data, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (data / name).write_text("no image")
    (data / "metadata.jsonl").unlink()
    code, report = check(run, tmp_path, data)
    assert code == 1 and report["bad_files"][0]["file"] == str(data / name)
    code, out, _ = run("data", "check", data, "-o", tmp_path / "x.png")
    assert code == 1 and any(r"caf\udce9.png is not an image" in line for line in out)


def test_what_is_validated_on_is_not_checked(run, data, tmp_path):
    (data / "held").mkdir()
    (data / "held" / "x.png").write_bytes((data / "0.png").read_bytes())
    (data / "metadata.jsonl").unlink()
    recipe = {
        "data": {"train_data_dir": str(data), "label_maps": None, "resolution": SIDE},
        "output_dir": "unused",
        "validation": {"data_dir": str(data / "held"), "share": 0, "steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    _, report = check(run, tmp_path, tmp_path / "recipe.yaml")
    assert report["images"] == 2 * COUNT  # the maps count as images here
