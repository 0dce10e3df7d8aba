"""Sub-folders such as `train` and `test` are splits, as for Hugging Face's imagefolder, and not classes."""

import json

import pytest
from PIL import Image

from latentdiff import ConfigError, InputError
from latentdiff.data.images import Images, read_records
from latentdiff.data.options import DataOptions


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / name)
    return root


def read(root, **options):
    return Images(read_records(DataOptions(train_data_dir=str(root), **options)), 8)


def names(images):
    return [path.relative_to(images.root).as_posix() for path in images.files]


def test_sub_folders_of_splits_hold_the_classes(tmp_path):
    fill(tmp_path, *(f"{split}/{label}/0.png" for split in ("train", "test") for label in ("cat", "dog")))
    images = read(tmp_path)
    assert names(images) == ["train/cat/0.png", "train/dog/0.png"] and images.class_names == ["cat", "dog"]
    assert images.records.notes == [f"{tmp_path} has other splits, which are left out: test; dataset_split chooses one"]
    assert names(read(tmp_path, dataset_split="test")) == ["test/cat/0.png", "test/dog/0.png"]


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "dev", "Val"])
def test_a_split_has_several_names(tmp_path, folder):
    fill(tmp_path, "train/0.png", f"{folder}/1.png")
    assert names(read(tmp_path)) == ["train/0.png"]
    for name in ("val", "validation"):
        assert names(read(tmp_path, dataset_split=name)) == [f"{folder}/1.png"]


def test_each_split_has_metadata_of_its_own(tmp_path):
    """Those of another split need not even have the same columns."""
    fill(tmp_path, "train/0.png", "train/1.png", "test/0.png")
    rows = [{"file_name": "1.png", "text": "one"}, {"file_name": "0.png", "text": "zero"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n0.png,3\n")
    images = read(tmp_path)
    assert names(images) == ["train/1.png", "train/0.png"] and images.captions == ["one", "zero"]
    assert images.labels is None
    assert read(tmp_path, dataset_split="test").labels == [3]


def test_metadata_above_the_splits(tmp_path):
    fill(tmp_path, "train/0.png", "test/0.png")
    rows = [{"file_name": f"{split}/0.png", "text": split} for split in ("train", "test")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path).captions == ["train"] and read(tmp_path, dataset_split="test").captions == ["test"]


def test_metadata_in_sub_folders_that_are_no_splits(tmp_path):
    fill(tmp_path, "a/0.png", "b/0.png", "b/1.png")
    for name in "ab":
        (tmp_path / name / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": name}))
    images = read(tmp_path)
    assert names(images) == ["a/0.png", "b/0.png"] and images.captions == ["a", "b"]
    assert images.records.notes == [f"{tmp_path}: 1 images are not in any of its metadata, left out"]


def test_one_name_of_a_split_among_others_is_a_class(tmp_path):
    """Such as the trains among vehicles."""
    images = read(fill(tmp_path, "bus/0.png", "train/0.png"))
    assert images.class_names == ["bus", "train"]


def test_splits_beside_other_folders_are_refused(tmp_path):
    fill(tmp_path, "train/0.png", "test/0.png", "extra/0.png")
    with pytest.raises(InputError, match=r"has test and train, which are names of splits, beside extra/0\.png"):
        read(tmp_path)


def test_a_split_that_there_is_not(tmp_path):
    fill(tmp_path / "a", "test/0.png")
    with pytest.raises(InputError, match=r"has no split 'train'; .*test"):
        read(tmp_path / "a")
    fill(tmp_path / "b", "train/0.png", "test/0.png")
    with pytest.raises(InputError, match=r"has no split 'tset'; did you mean 'test'"):
        read(tmp_path / "b", dataset_split="tset")
    fill(tmp_path / "c", "cat/0.png", "dog/0.png")
    with pytest.raises(ConfigError, match=r"dataset_split is given, but .* has no sub-folders of splits"):
        read(tmp_path / "c", dataset_split="test")


@pytest.mark.parametrize("above", ["images", "data/images", "train2017"])
def test_splits_in_a_folder_of_their_own(tmp_path, above):
    """As in the folders of YOLO's data sets; a folder with the name of a split is one itself."""
    fill(tmp_path, *(f"{above}/{split}/{label}/0.png" for split in ("train", "val") for label in ("cat", "dog")))
    images = read(tmp_path)
    if above == "train2017":
        assert images.class_names == ["train", "val"] and len(images) == 4
        return
    assert names(images) == [f"{above}/train/cat/0.png", f"{above}/train/dog/0.png"]
    assert images.class_names == ["cat", "dog"]
    assert names(read(tmp_path, dataset_split="val")) == [f"{above}/val/cat/0.png", f"{above}/val/dog/0.png"]


def test_splits_with_a_year(tmp_path):
    fill(tmp_path, "train2017/0.png", "val2017/1.png")
    assert names(read(tmp_path)) == ["train2017/0.png"]
    images = read(fill(tmp_path / "x", "test_tube/0.png", "bullet_train/1.png"))
    assert images.class_names == ["bullet_train", "test_tube"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("trainA", "testA"),  # of CycleGAN
        ("train_images", "test_images"),  # of Kaggle
        ("training_set", "test_set"),
        ("images_train", "images_val"),
        ("trainset", "testset"),
    ],
)
def test_splits_whose_names_say_more(tmp_path, train, test):
    images = read(fill(tmp_path, f"{train}/cat/0.png", f"{test}/cat/1.png"))
    assert names(images) == [f"{train}/cat/0.png"] and images.class_names == ["cat"]
    assert f"other splits, which are left out: {test}" in images.records.notes[0]


@pytest.mark.parametrize("classes", [("trainer", "tester"), ("trains", "vals"), ("steam_train", "toy_train")])
def test_classes_whose_names_only_begin_or_end_so(tmp_path, classes):
    assert read(fill(tmp_path, *(f"{name}/0.png" for name in classes))).class_names == sorted(classes)


def test_one_folder_of_images_is_no_split(tmp_path):
    images = read(fill(tmp_path, "images/cat/0.png", "images/dog/0.png"))
    assert images.class_names == ["images"] and len(images) == 2
