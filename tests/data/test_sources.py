"""Every source of images gives the same pictures and the same of what is known of them."""

import io
import json
import os
import tarfile

import datasets
import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from latentdiff import BadFileError, ConfigError, InputError
from latentdiff.config import from_mapping
from latentdiff.data.images import Images, read_records
from latentdiff.data.options import DataOptions

COUNT, SIDE = 4, 8
CAPTIONS = [f"picture {i}" for i in range(COUNT)]
LABELS = ["cat", "dog", "cat", "eel"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    datasets.disable_progress_bars()


def picture(i):
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE + i, 3), dtype=np.uint8))


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def open_data(**options):
    options = from_mapping(DataOptions, {"resolution": SIDE, **options})
    return Images(read_records(options), options.resolution, value_range=options.value_range)


def assert_is_the_data(images):
    expected = [Image.open(io.BytesIO(png(picture(i)))) for i in range(COUNT)]
    assert len(images) == COUNT
    for i, image in enumerate(expected):
        square = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=(i // 2, 0, i // 2 + SIDE, SIDE))
        pixels = torch.from_numpy(np.array(image if i == 0 else square)).permute(2, 0, 1)
        assert torch.equal(images[i], pixels.float() / 127.5 - 1)
    assert images.captions == CAPTIONS
    assert [images.class_names[label] for label in images.labels] == LABELS


def write_folder(folder):
    folder.mkdir()
    for i in range(COUNT):
        picture(i).save(folder / f"{i}.png")
    return folder


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def members(start, stop):
    for i in range(start, stop):
        yield f"a/{i:03d}.png", png(picture(i))
        yield f"a/{i:03d}.txt", CAPTIONS[i].encode()
        yield f"a/{i:03d}.json", json.dumps({"label": LABELS[i], "score": i}).encode()


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, (start, stop) in enumerate([(0, 3), (3, COUNT)]):
        write_tar(folder / f"train-{number}.tar", dict(members(start, stop)))
    return folder


def table(**columns):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["eel", "dog", "cat"]),
        }
        | {name: feature for name, (feature, _) in columns.items()}
    )
    rows = {
        "image": [{"bytes": png(picture(i)), "path": None} for i in range(COUNT)],
        "text": CAPTIONS,
        "label": LABELS,
    }
    return datasets.Dataset.from_dict(rows | {name: values for name, (_, values) in columns.items()}, features=features)


def test_shards(shards):
    images = open_data(train_data_dir=str(shards))
    assert_is_the_data(images)
    assert [row["score"] for row in images.metadata] == list(range(COUNT))
    assert_is_the_data(open_data(train_data_dir=str(shards / "train-*.tar")))
    assert len(open_data(train_data_dir=str(shards / "train-0.tar"))) == 3


def test_shards_are_indexed_once(shards, monkeypatch):
    open_data(train_data_dir=str(shards))
    assert sorted(path.name for path in shards.glob(".*")) == [f".train-{i}.tar.index.json" for i in range(2)]
    monkeypatch.setattr(tarfile, "open", None)  # the index is enough
    assert_is_the_data(images := open_data(train_data_dir=str(shards)))
    monkeypatch.undo()
    before = images.fingerprint()
    changed = dict(members(0, 3)) | {"a/000.txt": b"another"}
    write_tar(shards / "train-0.tar", changed)
    os.utime(shards / "train-0.tar", ns=(1, 1))
    again = open_data(train_data_dir=str(shards))
    assert again.captions[0] == "another" and again.fingerprint() != before


def test_what_img2dataset_writes_beside_shards_is_no_data_set(shards):
    for i in range(2):
        pandas.DataFrame({"url": ["u"], "key": ["0"]}).to_parquet(shards / f"train-{i}.parquet")
        (shards / f"train-{i}_stats.json").write_text("{}")
    assert_is_the_data(open_data(train_data_dir=str(shards)))


def test_what_img2dataset_writes_beside_folders_is_no_data_set(tmp_path):
    write_folder(tmp_path / "00000")
    pandas.DataFrame({"url": ["u"], "key": ["0"]}).to_parquet(tmp_path / "00000.parquet")
    assert len(open_data(train_data_dir=str(tmp_path))) == COUNT


def test_a_table_of_captions_beside_images_is_told_its_name(tmp_path):
    write_folder(tmp_path / "d")
    pandas.DataFrame({"file_name": ["0.png"], "text": ["a"]}).to_parquet(tmp_path / "d" / "captions.parquet")
    with pytest.raises(InputError, match=r"no column 'image'; .*; beside images, call it metadata\.parquet"):
        open_data(train_data_dir=str(tmp_path / "d"))


@pytest.mark.parametrize("name", ["0.png", "cat/0.png"])
def test_shards_and_images_in_one_folder_are_refused(shards, name):
    (shards / name).parent.mkdir(exist_ok=True)
    (shards / name).write_bytes(png(picture(0)))
    with pytest.raises(InputError, match=rf"has shards and images, such as .*{name}; for the shards give .*\*\.tar"):
        open_data(train_data_dir=str(shards))
    assert_is_the_data(open_data(train_data_dir=str(shards / "*.tar")))


def test_a_shard_whose_name_reads_as_a_pattern(shards):
    (shards / "train-0.tar").rename(shards / "a[1].tar")
    assert len(open_data(train_data_dir=str(shards / "a[1].tar"))) == 3


def test_damaged_shards_end_early(shards):
    whole = (shards / "train-0.tar").read_bytes()
    (shards / "train-0.tar").write_bytes(whole[: len(whole) // 2])
    images = open_data(train_data_dir=str(shards))
    ((file, reason),) = images.records.damaged
    assert file.endswith("train-0.tar") and reason and len(images) < COUNT and images[0].shape == (3, SIDE, SIDE)
    (shards / "train-0.tar").write_bytes(b"no tar file at all" * 100)
    with pytest.raises(InputError, match=r"train-0\.tar is not an uncompressed tar file"):
        open_data(train_data_dir=str(shards))


def test_shards_with_columns_of_other_names(tmp_path):
    grey = png(Image.new("L", (SIDE, SIDE), 2))
    samples = {
        f"{i}.{suffix}": content
        for i in range(2)
        for suffix, content in {
            "input.png": png(picture(i)),
            "png": grey,
            "cls": b"3",
            "json": b'{"said": "so"}',
            "mask.png": grey,
        }.items()
    }
    path = write_tar(tmp_path / "x.tar", samples | {"lonely.txt": b"no image"})
    columns = {"image_column": "input.png", "caption_column": "said", "label_map_column": "mask.png"}
    images = open_data(train_data_dir=str(path), **columns)
    assert (
        images.captions == ["so", "so"] and images.labels == [3, 3] and torch.equal(images[0], open_tensor(picture(0)))
    )
    assert images.label_maps[1].open("rb").read() == grey
    assert "1 samples have no image" in images.records.notes[0]
    with pytest.raises(InputError, match=r"has nothing called 'sad'.*'said'"):
        open_data(train_data_dir=str(path), caption_column="sad")


def open_tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def test_saved_data_sets(tmp_path):
    table().save_to_disk(tmp_path / "one")
    images = open_data(train_data_dir=str(tmp_path / "one"))
    assert_is_the_data(images)
    assert images.fingerprint() == open_data(train_data_dir=str(tmp_path / "one")).fingerprint()
    datasets.DatasetDict(train=table(), test=table().select([0])).save_to_disk(tmp_path / "two")
    assert_is_the_data(open_data(train_data_dir=str(tmp_path / "two")))
    assert len(open_data(train_data_dir=str(tmp_path / "two"), dataset_split="test")) == 1
    with pytest.raises(InputError, match=r"has no split 'tset'.*test"):
        open_data(train_data_dir=str(tmp_path / "two"), dataset_split="tset")


def test_parquet_and_data_sets_by_name(tmp_path):
    (tmp_path / "data").mkdir()
    table().to_parquet(tmp_path / "data" / "train.parquet")
    assert_is_the_data(open_data(train_data_dir=str(tmp_path / "data")))
    assert_is_the_data(open_data(train_data_dir=str(tmp_path / "data" / "train.parquet")))
    assert_is_the_data(open_data(dataset_name=str(tmp_path / "data")))
    with pytest.raises(InputError, match=r"no column 'txet'.*'text'"):
        open_data(train_data_dir=str(tmp_path / "data"), caption_column="txet")
    with pytest.raises(InputError, match="can't be loaded as a data set"):
        open_data(dataset_name=str(tmp_path / "absent"))


def test_splits_of_parquet_files(tmp_path):
    names = {"train-00000-of-00001": 3, "test-00000-of-00001": 2}
    for name, count in names.items():
        table().select(range(count)).to_parquet(tmp_path / f"{name}.parquet")
    assert len(open_data(train_data_dir=str(tmp_path))) == 3
    assert len(open_data(train_data_dir=str(tmp_path), dataset_split="test")) == 2
    with pytest.raises(InputError, match="has no split 'tset'; did you mean 'test'"):
        open_data(train_data_dir=str(tmp_path), dataset_split="tset")
    table().save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "saved", tmp_path / "train-00000-of-00001.parquet"):
        with pytest.raises(InputError, match=r"dataset_split is 'test', but .* has no splits"):
            open_data(train_data_dir=str(path), dataset_split="test")


def test_other_images_have_another_fingerprint(tmp_path):
    """The cache of latents goes by it."""
    both = {f"{i}.{side}.png": png(picture(i + 10 * k)) for i in range(2) for k, side in enumerate("ab")}
    shards = str(write_tar(tmp_path / "a.tar", both))
    found = [open_data(train_data_dir=shards, image_column=f"{side}.png").fingerprint() for side in "ab"]
    twice = table().add_column("other", [{"bytes": png(picture(i)), "path": None} for i in range(COUNT)])
    twice.cast_column("other", datasets.Image()).save_to_disk(tmp_path / "saved")
    saved = str(tmp_path / "saved")
    found += [open_data(train_data_dir=saved, image_column=name).fingerprint() for name in ("image", "other")]
    folder = write_folder(tmp_path / "folder")
    for images in (range(2), range(1, 3)):
        coco = {"images": [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in images]}
        coco |= {"categories": [{"id": 1, "name": "cat"}], "annotations": []}
        coco["annotations"] = [{"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4]} for i in images]
        (tmp_path / "coco.json").write_text(json.dumps(coco))
        options = {"train_data_dir": str(folder), "annotations": str(tmp_path / "coco.json")}
        found.append(open_data(**options).fingerprint())
    assert len(set(found)) == 6


def test_objects_and_maps_of_tables(tmp_path):
    """Objects lie in columns, as in detection data sets on the hub, with classes as numbers that have names."""
    objects = datasets.Features(
        {
            "bbox": datasets.List(datasets.Value("float32"), length=4),
            "category": datasets.ClassLabel(names=["cup", "jar"]),
        }
    )
    boxes = [{"bbox": [[0, 0, 4, 2]] * i, "category": [i % 2] * i} for i in range(COUNT)]
    maps = [{"bytes": png(Image.new("L", (SIDE, SIDE), i)), "path": None} for i in range(COUNT)]
    table(
        objects=({k: datasets.List(v) for k, v in objects.items()}, boxes), seg=(datasets.Image(), maps)
    ).save_to_disk(tmp_path / "d")
    images = open_data(train_data_dir=str(tmp_path / "d"), label_map_column="seg")
    assert images.objects[0] == [] and images.objects[3] == [{"class": "jar", "box": [0, 0, 4, 2]}] * 3
    assert np.asarray(Image.open(images.label_maps[2].open("rb"))).tolist() == [[2] * SIDE] * SIDE


def test_rows_without_an_image_or_a_caption(tmp_path):
    rows = table().to_dict()
    rows["text"][1] = " "
    datasets.Dataset.from_dict(rows, features=table().features).save_to_disk(tmp_path / "no text")
    with pytest.raises(InputError, match=r"1 of 4 images have no text, the first is .* row 1"):
        open_data(train_data_dir=str(tmp_path / "no text"))
    rows = table().to_dict()
    rows["image"][2] = None
    datasets.Dataset.from_dict(rows, features=table().features).save_to_disk(tmp_path / "no image")
    images = open_data(train_data_dir=str(tmp_path / "no image"))
    with pytest.raises(BadFileError, match="row 2 has no image"):
        images[2]


def write_coco(path, crowd=0):
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png", "width": SIDE + i, "height": SIDE} for i in range(COUNT)],
        "categories": [{"id": 7, "name": "cup"}, {"id": 90, "name": "jar"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [0, 0, 4, 2], "iscrowd": 0},
            {"id": 2, "image_id": 13, "category_id": 90, "bbox": [-2, 1, 20, 4], "iscrowd": 0},
            {"id": 3, "image_id": 13, "category_id": 90, "bbox": [1, 1, 0, 4], "iscrowd": 0},
            {"id": 4, "image_id": 13, "category_id": 7, "bbox": [1, 1, 2, 4], "iscrowd": 1},
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path):
    folder, boxes, texts = write_folder(tmp_path / "d"), write_coco(tmp_path / "boxes.json"), tmp_path / "texts.json"
    images = open_data(train_data_dir=str(folder), annotations=str(boxes))
    jar = {"class": "jar", "box": [0, 1, SIDE + 3, 4]}
    assert images.objects == [[{"class": "cup", "box": [0, 0, 4, 2]}], [], [], [jar]]
    assert (
        images.boxes == ("xywh", True)
        and "1 boxes are empty, left out; the first is annotation 3" in images.records.notes[0]
    )
    content = json.loads(boxes.read_text())
    texts.write_text(
        json.dumps(
            {
                "images": content["images"][1:],
                "annotations": [
                    {"image_id": 10 + i, "caption": f"{n} of\n{i}"} for i in range(1, COUNT) for n in range(i)
                ],
            }
        )
    )
    both = open_data(train_data_dir=str(folder), annotations=[str(boxes), str(texts)])
    assert [file.name for file in both.files] == ["1.png", "2.png", "3.png"] and both.objects[2] == [jar]
    assert both.captions == [["0 of 1"], ["0 of 2", "1 of 2"], ["0 of 3", "1 of 3", "2 of 3"]]
    assert any("does not have 1 of 4 images" in line for line in both.records.notes)
    said = json.loads(texts.read_text())
    said["annotations"][0]["caption"] = " "
    texts.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"1 of 3 images have no text, the first is 1\.png"):
        open_data(train_data_dir=str(folder), annotations=str(texts))


def test_open_images(tmp_path):
    folder = write_folder(tmp_path / "d")
    (tmp_path / "names.csv").write_text("/m/1,Cup\n/m/2,Jar\n")
    (tmp_path / "boxes.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n"
        "0,x,/m/2,1,0.25,0.5,0,1.1,0,0,0\n"
        "0,x,/m/1,1,0.1,0.1,0,1,0,0,0\n"
        "2,x,/m/1,1,0.1,0.9,0,1,0,0,1\n"
    )
    files = [str(tmp_path / "boxes.csv"), str(tmp_path / "names.csv")]
    images = open_data(train_data_dir=str(folder), annotations=files)
    assert [file.name for file in images.files] == ["0.png", "2.png"] and images.boxes == ("xyxy", False)
    assert images.objects == [[{"class": "Jar", "box": [0.25, 0.0, 0.5, 1.0]}], []]


def test_folders_of_label_maps(tmp_path):
    folder = write_folder(tmp_path / "d")
    (folder / "maps").mkdir()
    for i in range(COUNT):
        Image.new("L", (SIDE + i, SIDE), i).save(folder / "maps" / f"{i}.bmp")
    images = open_data(train_data_dir=str(folder), label_maps=str(folder / "maps"))
    assert len(images) == COUNT and [path.name for path in images.label_maps] == [f"{i}.bmp" for i in range(COUNT)]
    (folder / "maps" / "2.bmp").unlink()
    with pytest.raises(InputError, match=r"1 of 4 images have no label map in .*, the first is 2"):
        open_data(train_data_dir=str(folder), label_maps=str(folder / "maps"))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, ConfigError, "train_data_dir is missing; give it, or dataset_name"),
        (
            {"train_data_dir": "d", "dataset_name": "x"},
            ConfigError,
            "train_data_dir is given, and dataset_name too; give one",
        ),
        ({"train_data_dir": "empty"}, InputError, "holds no images; known suffixes are"),
        ({"train_data_dir": "absent"}, InputError, "is not a folder"),
        ({"train_data_dir": "absent/*.tar"}, InputError, "matches no tar file"),
        ({"train_data_dir": "d", "annotations": "other.json"}, InputError, "has none of the 4 images"),
        ({"train_data_dir": "d", "annotations": "broken.json"}, InputError, "annotations .*broken.json can't be read"),
        ({"train_data_dir": "d", "annotations": "absent.json"}, InputError, r"can't be read \(No such file"),
        ({"train_data_dir": "d", "annotations": "bad.csv"}, InputError, "bad.csv can't be read"),
        ({"train_data_dir": "x.tar", "annotations": "other.json"}, ConfigError, "annotations is given, but goes with"),
        ({"train_data_dir": "d", "label_maps": "absent"}, InputError, "label_maps is .*absent, which is not a folder"),
        ({"train_data_dir": "d", "dataset_config_name": "x"}, ConfigError, "dataset_config_name is given without"),
        (
            {"train_data_dir": "d", "dataset_split": "test"},
            ConfigError,
            "dataset_split is given, but d is not a",
        ),
        ({"train_data_dir": "d", "caption_column": "x"}, InputError, r"caption_column is given, but d has no metadata"),
        ({"train_data_dir": "d", "value_range": [1, 1]}, ConfigError, "the first number must be below the second"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, options, kind, message):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "d")
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "x.tar", dict(members(0, 1)))
    (tmp_path / "other.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "z.png"}], "annotations": [], "categories": []})
    )
    (tmp_path / "broken.json").write_text('{"images": [')
    (tmp_path / "bad.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(kind, match=message) as caught:
        open_data(**options)
    assert "\n" not in str(caught.value)
