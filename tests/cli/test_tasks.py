"""Each task's command makes the images of its pipeline, and tells in them how."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, PALETTE

from latentdiff import DiffusionPipeline, ImageToImagePipeline, Windows
from latentdiff.cli.commands import IMAGE_COMMANDS
from latentdiff.io.generated import read_parameters

pytestmark = pytest.mark.thorough

SIZE = (18, 13)
OBJECTS = [{"class": "dog", "box": [0.1, 0.2, 0.5, 0.5]}, {"class": "star", "box": [0.5, 0.0, 0.5, 1.0]}]
CALL = {"num_inference_steps": 2, "seed": [3]}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def noise_image(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def mask_image(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.paste(255, (3, 3, 9, 9))
    mask.save(path)
    return path


def label_map(path, size=SIZE, colours=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.zeros((size[1], size[0]), np.uint8)
    numbers[5:] = 3
    Image.fromarray(np.array(PALETTE, np.uint8)[numbers] if colours else numbers).save(path)
    return path


@pytest.fixture
def made(run, models, tmp_path):
    """Runs a command with two steps and seed 3 of a tiny model; returns the lines it prints."""

    def call(command, *argv, model=None):
        options = ("--model", model or models[command], "--steps", 2, "--seed", 3)
        code, out, err = run(command, *argv, *options)
        assert (code, err) == (0, [])
        return out

    return call


@pytest.fixture
def loaded(models, capsys):
    def load(command):
        pipe = DiffusionPipeline.from_pretrained(models[command])
        capsys.readouterr()  # the bar of loading
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


def test_class(made, loaded):
    lines = made("class", "dog", "0-1", "-o", "out", "--size", "16x32")
    assert lines == [f"out/0000{i}-{name}-seed3.png\tseed 3" for i, name in enumerate(("dog", "class-0", "class-1"))]
    expected = loaded("class")(["dog", 0, 1], **{**CALL, "seed": [3] * 3}, height=32, width=16).images
    for path, image in zip(("out/00000-dog", "out/00001-class-0", "out/00002-class-1"), expected, strict=True):
        assert (pixels(f"{path}-seed3.png") == np.asarray(image)).all()
    assert read_parameters("out/00000-dog-seed3.png").items() >= {"label": "dog", "guidance_scale": 3.0}.items()


def test_inpaint(made, loaded, tmp_path):
    image, mask = noise_image(tmp_path / "a.jpg"), mask_image(tmp_path / "m.png")
    made("inpaint", "a.jpg", "--mask", "m.png", "-o", "a.png")
    expected = loaded("inpaint")(str(image), str(mask), **CALL).images[0]
    assert (pixels("a.png") == np.asarray(expected)).all()
    kept = pixels(mask)[..., 0] == 0
    assert (pixels("a.png")[kept] == pixels(image)[kept]).all()
    assert (pixels("a.png")[~kept] != pixels(image)[~kept]).any()
    assert read_parameters("a.png").items() >= {"image": "a.jpg", "mask": "m.png"}.items()


def test_upscale(made, loaded, tmp_path):
    image = noise_image(tmp_path / "a.png")
    assert made("upscale", "a.png") == ["a-seed3.png\tseed 3"]
    assert (pixels("a-seed3.png") == np.asarray(loaded("upscale")(str(image), **CALL).images[0])).all()
    assert pixels("a-seed3.png").shape == (2 * SIZE[1], 2 * SIZE[0], 3)


def test_layout(made, loaded, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"objects": OBJECTS}))
    made("layout", "a.json", "-o", "a.png")
    assert (pixels("a.png") == np.asarray(loaded("layout")(OBJECTS, **CALL).images[0])).all()
    assert [item["class"] for item in read_parameters("a.png")["objects"]] == ["dog", "star"]


def test_layouts_of_coco_annotations_have_boxes_in_pixels(made, loaded, tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 200, "height": 100} for i in (5, 7)]
    boxes = [(5, 2, [20, 20, 100, 50]), (5, 4, [100, 0, 100, 100])]
    content = {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [{"image_id": i, "category_id": c, "bbox": box, "iscrowd": 0} for i, c, box in boxes],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    lines = made("layout", "coco.json", "-o", "out")
    assert lines == ["out/5.png\tseed 3", "out/7.png\tseed 3"]
    expected = loaded("layout")([OBJECTS, []], **{**CALL, "seed": [3, 3]}).images
    assert all((pixels(f"out/{i}.png") == np.asarray(image)).all() for i, image in zip((5, 7), expected, strict=True))
    assert read_parameters("out/5.png")["layout"] == "coco.json"
    for entry in content["annotations"]:  # as other tools write the same
        x, y, width, height = entry.pop("bbox")
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        entry |= {"segmentation": [corners], "image_id": str(entry["image_id"]), "iscrowd": "0"}
        entry |= {"category_id": float(entry["category_id"]), "bbox": []}
    for entry in content["images"]:
        entry["file_name"] = f"C:\\data\\{entry['file_name']}"
    (tmp_path / "coco.json").write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert made("layout", "coco.json", "-o", "again") == ["again/5.png\tseed 3", "again/7.png\tseed 3"]
    assert (pixels("again/5.png") == pixels("out/5.png")).all()


def test_boxes_are_drawn_beside_the_image(made, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"objects": OBJECTS, "width": 1, "height": 1}))
    made("layout", "a.json", "-o", "plain.png")
    made("layout", "a.json", "-o", "drawn.png", "--draw")
    drawn = pixels("drawn.png")
    assert drawn.shape == (256, 512, 3)
    assert (drawn[::16, :256:16] == pixels("plain.png")).all()
    assert (drawn[:, 256:] != drawn[:, :256]).any()


def test_semantic(made, loaded, tmp_path):
    label_map(tmp_path / "maps/a.png")
    label_map(tmp_path / "maps/b.png", colours=True)
    made("semantic", "maps", "-o", "out")
    expected = loaded("semantic")(str(tmp_path / "maps/a.png"), **CALL).images[0]
    assert abs(pixels("out/a.png") - np.asarray(expected)).max() <= 1  # of another batch
    assert (pixels("out/a.png") == pixels("out/b.png")).all()
    (tmp_path / "palette.json").write_text(json.dumps({name: PALETTE[-1 - i] for i, name in enumerate(CLASSES)}))
    made("semantic", "maps/b.png", "-o", "b.png", "--palette", "palette.json")
    assert (pixels("b.png") != pixels("out/b.png")).any()


@pytest.mark.parametrize("kind", ["generate", "class", "sample"])
def test_img2img_with_every_kind_of_model(made, loaded, models, tmp_path, kind):
    image, mask = noise_image(tmp_path / "a.jpg"), mask_image(tmp_path / "m.png")
    told = {"generate": ("--prompt", "a dog"), "class": ("--label", "dog"), "sample": ()}[kind]
    options = ("--strength", 0.5, "--mask", "m.png", "-o", "a.png")
    made("img2img", "a.jpg", *told, *options, model=models[kind])
    shown = {"generate": {"prompt": "a dog"}, "class": {"class_labels": "dog"}, "sample": {}}[kind]
    pipe = ImageToImagePipeline.from_pipe(loaded(kind))
    expected = pipe(str(image), **shown, mask_image=str(mask), strength=0.5, **CALL).images[0]
    assert (pixels("a.png") == np.asarray(expected)).all()


def test_sample_without_classes(made, run, models, tmp_path):
    code, out, err = run("sample", "--model", models["sample"], "--steps", 2, "-n", 3, "-o", "out")
    assert (code, err) == (0, [])
    assert out == [f"out/00000{seed}.png\tseed {seed}" for seed in range(3)]
    made("sample", "-o", "three.png")
    assert (pixels("three.png") != pixels("out/000002.png")).any()


def test_sample_takes_classes_in_turn_but_for_the_null_class(run, models, loaded, tmp_path):
    options = ("--model", models["class"], "--steps", 2, "--batch-size", 7)
    assert run("sample", *options, "--seed", "0-6", "-o", "all")[0] == 0
    labels = [read_parameters(f"all/{seed:06d}.png")["label"] for seed in range(7)]
    assert labels == [0, 1, 2, 3, 4, 0, 1]
    expected = loaded("class")(labels, num_inference_steps=2, seed=0).images
    assert all((pixels(f"all/{i:06d}.png") == np.asarray(image)).all() for i, image in enumerate(expected))
    assert run("sample", *options, "--seed", "5-6", "--label", "dog", "1-2", "-o", "some")[0] == 0
    assert [read_parameters(f"some/{seed:06d}.png")["label"] for seed in (5, 6)] == [2, "dog"]


@pytest.mark.thorough
def test_windows(made, loaded, tmp_path):
    image = noise_image(tmp_path / "a.png", (24, 16))
    made("upscale", "a.png", "-o", "plain.png")
    for options, windows in (
        ((), Windows(16, 4)),
        (("--window-overlap", 8, "--wrap"), Windows(16, 8, wrap=True)),
    ):
        made("upscale", "a.png", "--window", 16, *options, "-o", "a-out.png", "--overwrite")
        expected = loaded("upscale")(str(image), windows=windows, **CALL).images[0]
        assert (pixels("a-out.png") == np.asarray(expected)).all()
        assert (pixels("a-out.png") != pixels("plain.png")).any()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("class", ["dog", "3", "--guidance-scale", "2", "-n", "2", "--grid"]),
        ("inpaint", ["a.jpg", "--mask", "m.png", "--window", "8", "--window-overlap", "2"]),
        ("upscale", ["-a.png", "--eta", "1", "--window", "16", "--wrap"]),
        ("layout", ["a.json", "--draw", "--guidance-scale", "2"]),
        ("semantic", ["map.png", "--ignore-index", "255", "--size", "32x16"]),
        ("img2img", ["a.jpg", "--prompt", "-a dog", "--strength", "0.5", "--negative-prompt", "a cat"]),
        ("sample", ["--scheduler", "dpmpp_2m_sde"]),
    ],
)
def test_the_command_in_an_image_makes_it_again(run, models, tmp_path, command, argv):
    noise_image(tmp_path / "a.jpg")
    noise_image(tmp_path / "-a.png")
    mask_image(tmp_path / "m.png")
    label_map(tmp_path / "map.png")
    (tmp_path / "a.json").write_text(json.dumps({"objects": OBJECTS}))
    argv = [f"./{word}" if word == "-a.png" else word for word in argv]
    argv = [f"--prompt={argv[argv.index('--prompt') + 1]}" if word == "--prompt" else word for word in argv]
    argv = [word for word in argv if word != "-a dog"]
    assert run(command, "-o", "first.png", *argv, "--model", models[command], "--steps", 2)[0] == 0
    line = run("info", "first.png")[1][-1].removeprefix("command: ")
    words = shlex.split(line)
    assert words[:2] == ["latentdiff", command]
    assert run(command, "-o", "again.png", *words[2:])[0] == 0
    assert (pixels("first.png") == pixels("again.png")).all()
    assert read_parameters("first.png") == read_parameters("again.png")


def test_every_command_is_tested_here():
    assert set(IMAGE_COMMANDS) == {"generate", *CALLED}


CALLED = ("class", "inpaint", "upscale", "layout", "semantic", "img2img", "sample")


WRONG = {
    "unknown argument '--modle'; did you mean '--model'": ["upscale", "a.png", "--modle", "x"],
    "--label: it takes 1 value, 0 given": ["sample", "--label", "--model", "x"],
    "required: --mask": ["inpaint", "a.png", "--model", "x"],
    "nothing.png is no file and no folder": ["upscale", "nothing.png", "--model", "x"],
    "empty holds no file of a known kind; known: .png": ["upscale", "empty", "--model", "x"],
    "a.txt is not an image of a known kind": ["upscale", "a.txt", "--model", "x"],
    "--mask is m.png, which doesn't exist": ["inpaint", "a.png", "--mask", "m.png", "--model", "x"],
    "empty holds no a.png for it": ["inpaint", "a.png", "--mask", "empty", "--model", "x"],
    "mask black.png is black everywhere": ["inpaint", "a.png", "--mask", "black.png", "--model", "x"],
    "mask small.png is 4x4 pixels, the image 18x13": ["img2img", "a.png", "--mask", "small.png", "--model", "x"],
    "a.txt cannot be read as JSON": ["layout", "a.txt", "--model", "x"],
    "is no COCO file (KeyError 'categories')": ["layout", "coco.json", "--model", "x"],
    "twice.json has two images of one id": ["layout", "twice.json", "--model", "x"],
    'no.json has no list of "objects"': ["layout", "no.json", "--model", "x"],
    "box of object 0 is (0, 0, 2, 1)": ["layout", "out.json", "--model", "x"],
    "class range '5-3' is given": ["class", "5-3", "--model", "x"],
    "palette.json cannot be read": ["semantic", "a.png", "--palette", "palette.json", "--model", "x"],
    "--wrap is given without --window": ["upscale", "a.png", "--wrap", "--model", "x"],
    "--window-overlap is 9; it must be at most half of --window, 8": [
        *("upscale", "a.png", "--window", "16", "--window-overlap", "9", "--model", "x"),
    ],
    "--strength: '0' is given": ["img2img", "a.png", "--strength", "0"],
    "prompt is empty": ["img2img", "a.png", "--prompt", " "],
    "cannot write a.png: it is an input": ["upscale", "a.png", "-o", "a.png", "--overwrite", "--model", "x"],
    "a.png: it is an input; choose another": ["upscale", "a.png", "a.txt", "-o", ".", "--model", "x"],
    ". is both input and --output": ["upscale", ".", "-o", ".", "--model", "x"],
    "two inputs would both become out/a.png": ["upscale", "a.png", "a.txt", "-o", "out", "--model", "x"],
    "unknown model 'x'": ["upscale", "a.png", "--model", "x"],
}


def test_coco_annotations_that_can_be_taken_for_others_are_refused(fails, tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 2, "name": "dog"}, {"id": 2, "name": "star"}],
        "annotations": [{"image_id": 1, "category_id": 2, "bbox": [0.1, 0.2, 0.5, 0.5]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    fails("a.json: the categories 'dog' and 'star' have the id 2", "layout", "a.json", "--model", "x")
    content["categories"].pop()
    (tmp_path / "a.json").write_text(json.dumps(content))
    fails("a.json: no box reaches beyond 1", "layout", "a.json", "--model", "x")


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_whatever_the_model_is_one_line(fails, tmp_path, message):
    noise_image(tmp_path / "a.png")
    Image.new("L", SIZE).save(tmp_path / "black.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "small.png")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.json").write_text("{}")
    twice = {"annotations": [], "categories": [], "images": [{"id": 1, "width": 8, "height": 8}] * 2}
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    (tmp_path / "coco.json").write_text('{"annotations": []}')
    (tmp_path / "out.json").write_text('{"objects": [{"class": "dog", "box": [0, 0, 2, 1]}]}')
    fails(message, *WRONG[message])


UNFIT = {
    "has UnconditionalPipeline, which latentdiff sample uses; latentdiff upscale needs SuperResolutionPipeline": [
        "upscale",
        "sample",
        "a.png",
    ],
    "has InpaintPipeline, which latentdiff inpaint uses; latentdiff img2img needs TextToImage": [
        "img2img",
        "inpaint",
        "a.png",
    ],
    "unknown class 'dgo'; did you mean 'dog'": ["class", "class", "dog", "dgo"],
    "class 6 is given": ["class", "class", "0-9"],
    "unknown class 'ape'": ["layout", "layout", "ape.json"],
    "has the value 3 at x": ["semantic", "semantic", "many.png"],
    "has no use for --label": ["sample", "sample", "--label", "dog"],
    "is unconditional and has no use for --guidance-scale": ["sample", "sample", "--guidance-scale", "2"],
    "needs --prompt; say what to show": ["img2img", "generate", "a.png"],
    "needs --label; say what to show": ["img2img", "class", "a.png"],
    "has no use for --prompt": ["img2img", "class", "a.png", "--prompt", "a dog"],
    "--strength 0.1 of 2 steps": ["img2img", "sample", "a.png", "--strength", "0.1"],
    "--window: size 15": ["upscale", "upscale", "a.png", "--window", "15"],
}


@pytest.mark.parametrize("message", UNFIT)
def test_what_does_not_fit_the_model_is_one_line(fails, models, tmp_path, message):
    noise_image(tmp_path / "a.png")
    label_map(tmp_path / "many.png")
    (tmp_path / "ape.json").write_text('{"objects": [{"class": "ape", "box": [0, 0, 1, 1]}]}')
    with Image.open(tmp_path / "many.png") as image:
        image.point(lambda value: 30 * value).save(tmp_path / "many.png")
    command, model, *argv = UNFIT[message]
    message = message.replace("has the value 3 ", "has the value 90 ")
    fails(message, command, *argv, "--model", models[model], "--steps", 2)
