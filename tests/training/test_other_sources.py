"""Runs on other sources than a folder with metadata see the very same data."""

import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file

from latentdiff import ConfigError, InputError
from latentdiff.seeding import array_generator
from latentdiff.training.data import open_training_images
from latentdiff.training.diffusion.build import make_conditioner

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("vae") / "vae")


@pytest.fixture
def coco(data, tmp_path):
    """The data without its metadata, which lie in two files of COCO's form."""
    rows, folder = toy.lines(data), tmp_path / "images"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("maps", "metadata.jsonl"))
    images = [{"id": i, "file_name": row["file_name"], "width": 16, "height": 16} for i, row in enumerate(rows)]
    boxes = [
        {"id": i, "image_id": i, "category_id": toy.CLASSES.index(item["class"]), "bbox": item["box"]}
        for i, row in enumerate(rows)
        for item in row["objects"]
    ]
    texts = [{"id": i, "image_id": i, "caption": text} for i, row in enumerate(rows) for text in ("a dog", row["text"])]
    categories = [{"id": i, "name": name} for i, name in enumerate(toy.CLASSES)]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    (tmp_path / "texts.json").write_text(json.dumps({"images": images, "annotations": texts}))
    return folder


def rows_of(task, data, vae, **options):
    recipe = toy.recipe(task, data, vae, "unused", **options)
    images = open_training_images(recipe, 3)
    rows = make_conditioner(recipe, images).rows(images)
    return images, lambda image, number=0: rows(image, toy.SQUARE, array_generator(0, number))


def test_boxes_of_coco(data, coco, vae, tmp_path):
    annotations = str(tmp_path / "boxes.json")
    images, rows = rows_of("layout-to-image", data, vae)
    others, same = rows_of("layout-to-image", coco, vae, **{"data.annotations": annotations})
    assert len(images) == len(others) == 24
    for image, file in enumerate(images.files):
        other = [path.name for path in others.files].index(file.name)
        assert torch.equal(rows(image)["layout_ids"], same(other)["layout_ids"])
    with pytest.raises(ConfigError, match="box_units is given, but annotations say how"):
        rows_of("layout-to-image", coco, vae, **{"data.annotations": annotations, "data.box_units": "relative"})
    with pytest.raises(InputError, match="has no objects"):
        rows_of("layout-to-image", coco, vae)


def test_one_of_several_captions_at_each_visit(coco, vae, tmp_path):
    images, rows = rows_of("text-to-image", coco, vae, **{"data.annotations": str(tmp_path / "texts.json")})
    image = [path.name for path in images.files].index("0red2.png")
    visits = [tuple(rows(image, number)["input_ids"].tolist()) for number in range(40)]
    ids = {text: tuple(rows_of_text(coco, vae, tmp_path, text)) for text in ("a dog", "a red star")}
    assert set(visits) == set(ids.values())
    assert 5 <= visits.count(ids["a dog"]) <= 35  # 40 fair draws fall outside once in a million


def rows_of_text(coco, vae, tmp_path, text):
    """The ids of a caption that all images have."""
    content = json.loads((tmp_path / "texts.json").read_text())
    content["annotations"] = [item | {"caption": text} for item in content["annotations"]]
    (tmp_path / "same.json").write_text(json.dumps(content))
    _, rows = rows_of("text-to-image", coco, vae, **{"data.annotations": str(tmp_path / "same.json")})
    return rows(0)["input_ids"].tolist()


def test_shards_train_as_the_folder_does(data, vae, tmp_path):
    """Bit for bit: the order of samples is the same, too."""
    rows = {row["file_name"]: row for row in toy.lines(data)}
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    shutil.copytree(data, folder)
    names = sorted(rows)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(rows[name]) for name in names))
    shards.mkdir()
    for number in range(2):
        with tarfile.open(shards / f"{number}.tar", "w") as archive:
            for name in names[12 * number : 12 * number + 12]:
                (tmp_path / "x.json").write_text(json.dumps({"label": rows[name]["label"]}))
                archive.add(folder / name, name)
                archive.add(tmp_path / "x.json", name.replace(".png", ".json"))
                archive.add(folder / "maps" / name, name.replace(".png", ".seg.png"))
    for task in ("class-to-image", "semantic-to-image"):
        options = {"max_train_steps": 2, "data.random_flip": True, "data.num_workers": 1}
        outputs = [
            toy.train(task, source, vae, tmp_path / task / source.name, **options) for source in (folder, shards)
        ]
        first, second = (
            load_file(output / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors") for output in outputs
        )
        assert all(torch.equal(first[name], second[name]) for name in first)
        moments = [np.load(output / "latents" / "moments.npy") for output in outputs]
        assert np.array_equal(*moments)
