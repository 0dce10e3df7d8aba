"""Published data sets in their own layouts, as miniature copies."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from latentdiff import ConfigError, InputError
from latentdiff.config import from_mapping
from latentdiff.data.images import Images, read_records
from latentdiff.data.options import DataOptions
from latentdiff.registry import SOURCES

SIDE = 8
HUMAN = {
    "n01440764": "tench, Tinca tinca",
    "n02012849": "crane",
    "n03126707": "crane",
    "n02123045": "tabby, tabby cat",
}


def picture(path, number=0, size=(SIDE, SIDE)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (number * 20 % 256, 0, 0)).save(path, "JPEG" if path.suffix.lower() != ".png" else "PNG")
    return path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(folder, source, **options):
    options = from_mapping(
        DataOptions, {"resolution": SIDE, "train_data_dir": str(folder), "source": source, **options}
    )
    return Images(read_records(options), options.resolution)


def names(images):
    return [file.name for file in images.files]


@pytest.fixture
def imagenet(tmp_path):
    root = tmp_path / "ILSVRC2012_train"
    for number, synset in enumerate(HUMAN):
        for i in range(2):
            picture(root / "data" / synset / f"{synset}_{i}.JPEG", number)
    write(root / "synset_human.txt", "".join(f"{synset} {name}\n" for synset, name in HUMAN.items()))
    return root


def test_imagenets_classes_are_numbered_by_synset_and_named_for_people(imagenet):
    images = read(imagenet, "imagenet")
    assert images.class_names == ["tench", "crane (n02012849)", "tabby", "crane (n03126707)"]
    assert images.labels == [0, 0, 1, 1, 2, 2, 3, 3] and images.num_classes == 4
    assert images.metadata[4] == {"synset": "n02123045", "human_label": "tabby, tabby cat"}
    assert images[0].shape == (3, SIDE, SIDE)
    assert read(imagenet / "data", "imagenet").labels == images.labels


def test_imagenets_own_numbers_are_kept_where_they_are_told(imagenet):
    index = {0: "n01440764", 1: "n01443537", 2: "n02012849", 3: "n02123045", 4: "n03126707"}
    write(imagenet / "index_synset.yaml", "".join(f"{number}: {synset}\n" for number, synset in index.items()))
    images = read(imagenet, "imagenet")
    assert images.labels == [0, 0, 2, 2, 3, 3, 4, 4] and images.num_classes == 5
    assert images.class_names[1] == "n01443537"
    write(imagenet / "index_synset.yaml", "0: n01440764\n")
    with pytest.raises(InputError, match="lacks n02012849; take it away"):
        read(imagenet, "imagenet")
    write(imagenet / "index_synset.yaml", "1: n01440764\n2: n02012849\n3: n02123045\n4: n03126707\n")
    with pytest.raises(InputError, match="has no numbers from 0 on"):
        read(imagenet, "imagenet")


def test_some_of_imagenets_classes(imagenet):
    images = read(imagenet, "imagenet", source_options={"classes": ["tabby", "n01440764"]})
    assert images.class_names == ["tench", "tabby"] and images.labels == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match="classes has 'taby'; did you mean 'tabby'"):
        read(imagenet, "imagenet", source_options={"classes": ["taby"]})
    with pytest.raises(ConfigError, match="source_options has 'class', which the source 'imagenet' doesn't know"):
        read(imagenet, "imagenet", source_options={"class": []})


def test_imagenets_validation_set_before_it_is_sorted_into_folders(tmp_path):
    root = tmp_path / "ILSVRC2012_validation"
    for i in range(3):
        picture(root / "data" / f"ILSVRC2012_val_0000000{i}.JPEG", i)
    synsets = ["n02123045", "n01440764", "n02123045"]
    lines = [f"ILSVRC2012_val_0000000{i}.JPEG {synset}\n" for i, synset in enumerate(synsets)]
    write(root / "validation_synset.txt", "".join(lines))
    images = read(root, "imagenet")
    assert images.labels == [1, 0, 1] and images.class_names == ["n01440764", "n02123045"]
    write(root / "validation_synset.txt", lines[0] + lines[1])
    with pytest.raises(InputError, match=r"val_00000002\.JPEG is in no folder of a synset; ImageNet has folders"):
        read(root, "imagenet")


@pytest.mark.parametrize(
    ("source", "folder", "train", "other"),
    [
        ("lsun", "churches", "church_outdoor_train.txt", "church_outdoor_val.txt"),
        ("lsun", "cats", "cat_train.txt", "cat_val.txt"),
        ("ffhq", "ffhq", "ffhqtrain.txt", "ffhqvalidation.txt"),
    ],
)
def test_lists_of_splits_beside_the_folder(tmp_path, source, folder, train, other):
    for i in range(4):
        picture(tmp_path / folder / "ab" / f"{i}.webp.jpg", i)
    picture(tmp_path / "bedrooms" / "0.jpg")
    write(tmp_path / "bedrooms_train.txt", "0.jpg\n")
    write(tmp_path / train, "ab/2.webp.jpg\nab/0.webp.jpg\n\n")
    write(tmp_path / other, "ab/3.webp.jpg\n")
    assert names(read(tmp_path / folder, source)) == ["2.webp.jpg", "0.webp.jpg"]
    for split in ("val", "validation"):
        assert names(read(tmp_path / folder, source, dataset_split=split)) == ["3.webp.jpg"]
    assert names(read(tmp_path / other, source)) == ["3.webp.jpg"]  # as validation.data_dir names it
    with pytest.raises(InputError, match="has no list of the split 'test'"):
        read(tmp_path / folder, source, dataset_split="test")
    with pytest.raises(ConfigError, match="dataset_split is 'trian'; did you mean 'train'"):
        read(tmp_path / folder, source, dataset_split="trian")
    write(tmp_path / train, "ab/2.webp.jpg\nab/9.webp.jpg\n")
    with pytest.raises(InputError, match=r"names 1 images that aren't in .*, the first is ab/9\.webp\.jpg"):
        read(tmp_path / folder, source)
    write(tmp_path / train, "\n")
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path / folder, source)


def test_celebahqs_numbered_arrays(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    (tmp_path / "celebahq").mkdir()
    np.save(tmp_path / "celebahq" / "imgHQ00000.npy", pixels.transpose(2, 0, 1)[None])  # as the original has them
    np.save(tmp_path / "celebahq" / "imgHQ00001.npy", pixels)
    (tmp_path / "celebahq" / "imgHQ00002.npy").write_bytes(b"\x93NUMPY of nothing")
    write(tmp_path / "celebahqtrain.txt", "imgHQ00000.npy\nimgHQ00001.npy\nimgHQ00002.npy\n")
    images = read(tmp_path / "celebahq", "celebahq")
    for i in range(2):
        values = (images[i].permute(1, 2, 0).numpy() + 1) * 127.5
        np.testing.assert_allclose(values, pixels, atol=1e-3)
    with pytest.raises(InputError, match=r"imgHQ00002\.npy is not an array"):
        images[2]


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    for split in ("train2017", "val2017"):
        for i in range(2):
            picture(root / split / f"{i:012d}.jpg", i)
        listed = [{"id": i, "file_name": f"{i:012d}.jpg", "width": SIDE, "height": SIDE} for i in range(2)]
        captions = [{"id": i, "image_id": i, "caption": f"{split} {i}"} for i in range(2)]
        boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4]} for i in range(2)]
        values = {"images": listed, "annotations": captions}
        write(root / "annotations" / f"captions_{split}.json", json.dumps(values))
        values = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
        write(root / "annotations" / f"instances_{split}.json", json.dumps(values))
    return root


def test_cocos_splits_with_captions_and_boxes(coco):
    images = read(coco, "coco")
    assert images.captions == [["train2017 0"], ["train2017 1"]]
    assert images.objects == [[{"class": "cat", "box": [0, 0, 4, 4]}]] * 2
    assert read(coco, "coco", dataset_split="val").captions == [["val2017 0"], ["val2017 1"]]
    assert read(coco / "val2017", "coco").captions == [["val2017 0"], ["val2017 1"]]
    with pytest.raises(InputError, match=r"has no folder of the split 'test', such as .*coco/test"):
        read(coco, "coco", dataset_split="test")
    for path in (coco / "annotations").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"has no annotations; looked for were .*captions_train2017\.json"):
        read(coco, "coco")


@pytest.mark.parametrize("place", ["coco/stuffthingmaps", "cocostuffthings"])
def test_coco_stuffs_maps_are_in_or_beside_the_folder(coco, place):
    for i in range(2):
        path = coco.parent / place / "train2017" / f"{i:012d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((SIDE, SIDE), i and 181, np.uint8)).save(path)
    images = read(coco, "coco-stuff")
    assert [file.parent.parent.name for file in images.label_maps] == [place.rpartition("/")[2]] * 2
    assert images.captions is None and names(images) == ["000000000000.jpg", "000000000001.jpg"]
    with pytest.raises(InputError, match="has no maps of things and stuff; looked for were"):
        read(coco, "coco-stuff", dataset_split="validation")


def test_ade20ks_maps_and_scenes(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for i in range(2):
        picture(root / "images" / "training" / f"ADE_train_{i}.jpg", i)
        picture(root / "annotations" / "training" / f"ADE_train_{i}.png", i)
    assert read(root, "ade20k").labels is None
    write(root / "sceneCategories.txt", "ADE_train_0 street\nADE_train_1 attic\n")
    for folder in (root, root / "images" / "training"):
        images = read(folder, "ade20k")
        assert images.class_names == ["attic", "street"] and images.labels == [1, 0]
        assert names(images) == ["ADE_train_0.jpg", "ADE_train_1.jpg"] and len(images.label_maps) == 2
    write(root / "sceneCategories.txt", "ADE_train_0 street\n")
    with pytest.raises(InputError, match="has no scene for ADE_train_1"):
        read(root, "ade20k")


def test_open_images_boxes_and_names(tmp_path):
    root = tmp_path / "open_images"
    picture(root / "train" / "000002b66c9c498e.jpg")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n"
    line = "000002b66c9c498e,xclick,/m/01g317,1,0.25,0.5,0.5,1,0\n"
    write(root / "oidv6-train-annotations-bbox.csv", header + line)
    assert read(root, "open-images").objects == [[{"class": "/m/01g317", "box": [0.25, 0.5, 0.5, 1]}]]
    write(root / "class-descriptions-boxable.csv", "/m/01g317,Person\n")
    for folder in (root, root / "train"):
        assert read(folder, "open-images").objects == [[{"class": "Person", "box": [0.25, 0.5, 0.5, 1]}]]
    (root / "oidv6-train-annotations-bbox.csv").unlink()
    with pytest.raises(InputError, match="has no boxes of the split; looked for was"):
        read(root, "open-images")


@pytest.fixture
def laion(tmp_path):
    facts = [
        {"original_width": 600, "original_height": 512, "pwatermark": 0.1},
        {"original_width": 600, "original_height": 511, "pwatermark": 0.1},
        {"original_width": 600, "original_height": 600, "pwatermark": 0.5},
        {"original_width": 600},
    ]
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for i, row in enumerate(facts):
            stream = io.BytesIO()
            Image.new("RGB", (SIDE, SIDE)).save(stream, "JPEG")
            parts = {"jpg": stream.getvalue(), "txt": f"caption {i}".encode(), "json": json.dumps(row).encode()}
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"min_size": 511}, [0, 1, 2]),
        ({"min_size": 512}, [0, 2]),
        ({"min_size": 513}, [2]),
        ({"max_watermark": 0.5}, [0, 1, 2]),
        ({"max_watermark": 0.49}, [0, 1]),
        ({"min_size": 512, "max_watermark": 0.1}, [0]),
    ],
)
def test_laions_samples_are_chosen_by_facts(laion, settings, kept):
    images = read(laion, "laion", source_options=settings)
    assert images.captions == [f"caption {i}" for i in kept]
    assert len(images.records.notes) == (len(kept) < 4)


def test_laions_settings_are_checked(laion):
    with pytest.raises(InputError, match=r"no image of .* is left by min_size 601; choose other limits"):
        read(laion, "laion", source_options={"min_size": 601})
    for value in ("big", -1, True):
        with pytest.raises(ConfigError, match=r"source_options\.min_size is .*; give a number of at least 0"):
            read(laion, "laion", source_options={"min_size": value})


def test_options_of_a_source(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.source is 'imagnet'; did you mean 'imagenet'"):
        read(tmp_path, "imagnet")
    with pytest.raises(ConfigError, match="source_options is given without source"):
        from_mapping(DataOptions, {"train_data_dir": "x", "source_options": {"classes": []}})
    with pytest.raises(ConfigError, match="source is given, but train_data_dir isn't"):
        from_mapping(DataOptions, {"dataset_name": "x", "source": "coco"})


@pytest.mark.parametrize("name", SOURCES.names())
def test_a_folder_that_is_missing_or_empty_is_one_line(tmp_path, name):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError) as error:
            read(folder, name)
        assert "\n" not in str(error.value) and str(folder) in str(error.value)
