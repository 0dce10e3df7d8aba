"""Which files of a folder are data: hidden ones aren't, linked folders are once, and what is left out is said."""

import os
import tarfile

import datasets
import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.data.images import ImageFolder, read_records
from latentdiff.data.options import DataOptions
from latentdiff.data.walk import walk


def picture(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)
    return path


def read(folder, **options):
    return read_records(DataOptions(train_data_dir=str(folder), **options))


@pytest.fixture
def folder(tmp_path):
    """Two classes, of an image each."""
    for name in ("cat", "dog"):
        picture(tmp_path / "d" / name / "0.png")
    return tmp_path / "d"


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints/0-checkpoint.png",  # of Jupyter
        "cat/.ipynb_checkpoints/0-checkpoint.png",
        "cat/._0.png",  # of macOS
        "__MACOSX/cat/0.png",
        ".thumbs/0.png",
        "cat/@eaDir/0.png",  # of Synology
        ".git/cat/0.png",
        "#recycle/0.png",  # what was deleted, of Synology, QNAP, Windows, NetApp, Linux
        "@Recycle/0.png",
        "$Recycle.Bin/0.png",
        "$RECYCLE.BIN/0.png",
        "~snapshot/cat/0.png",
        "lost+found/0.png",
    ],
)
def test_hidden_files_are_no_images_and_hidden_folders_no_classes(folder, hidden):
    picture(folder / hidden)
    images = ImageFolder(folder, 8)
    assert len(images) == 2 and images.class_names == ["cat", "dog"]
    assert "1 are hidden, the first is" in images.records.ignored[0] and images.records.notes == []


@pytest.mark.parametrize("name", ["recycle", "#1", "snapshot"])
def test_folders_with_names_like_those_of_systems_are_classes(folder, name):
    picture(folder / name / "0.png")
    assert set(ImageFolder(folder, 8).class_names) == {"cat", "dog", name}


def test_the_folder_itself_may_be_hidden(tmp_path):
    picture(tmp_path / ".cache" / "cat" / "0.png")
    picture(tmp_path / ".cache" / "a.b" / "0.png")
    assert ImageFolder(tmp_path / ".cache", 8).class_names == ["a.b", "cat"]


def test_hidden_label_maps_are_none(folder, tmp_path):
    for name in ("cat/0.png", "dog/0.png", "dog/.0.png", ".x/cat/0.png"):
        picture(tmp_path / "maps" / name)
    maps = read(folder, label_maps=str(tmp_path / "maps")).columns["label_map"]
    assert [path.relative_to(tmp_path / "maps").as_posix() for path in maps] == ["cat/0.png", "dog/0.png"]


def test_hidden_shards_and_members_are_none(folder, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "0.tar", "w") as archive:
        for name in ("./a/0.png", "a/._0.png", ".x/1.png", "./__MACOSX/2.png"):
            archive.add(folder / "cat" / "0.png", name)
    (shards / "._0.tar").write_bytes(b"\0\5\x16\7")
    for source in (shards, shards / "*.tar"):
        assert [file.name for file in read(source).files] == ["a/0.png"]


def test_hidden_tables_are_none(folder, tmp_path):
    rows = {"image": [{"bytes": (folder / "cat" / "0.png").read_bytes(), "path": None}]}
    table = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))
    (tmp_path / "t").mkdir()
    table.to_parquet(tmp_path / "t" / "0.parquet")
    (tmp_path / "t" / "._0.parquet").write_bytes(b"\0\5\x16\7")
    assert len(read(tmp_path / "t").files) == 1


def test_linked_folders_are_classes(folder, tmp_path):
    picture(tmp_path / "store" / "0.png", "blue")
    (folder / "owl").symlink_to(tmp_path / "store")
    images = ImageFolder(folder, 8)
    assert images.class_names == ["cat", "dog", "owl"] and len(images) == 3 and images.records.notes == []


@pytest.mark.parametrize("target", [".", "..", "cat", "cat/.."])
def test_links_to_what_is_read_anyway_are_left_out_and_said(folder, target):
    (folder / "a-link").symlink_to(folder / target)
    images = ImageFolder(folder, 8)
    assert images.class_names == ["cat", "dog"] and len(images) == 2
    (note,) = images.records.notes
    assert "a-link leads to a folder that is read already" in note


def test_folders_that_link_each_other_end(folder):
    (folder / "cat" / "more").symlink_to(folder / "dog")
    (folder / "dog" / "more").symlink_to(folder / "cat")
    assert len(ImageFolder(folder, 8)) == 2


def test_a_link_to_nothing_is_a_bad_file_or_said(folder):
    (folder / "cat" / "1.png").symlink_to(folder / "gone.png")
    (folder / "owl").symlink_to(folder / "gone")
    images = ImageFolder(folder, 8)
    assert len(images) == 3 and images.fingerprint()
    assert images.records.notes == [f"{folder}/owl is a link to nothing, left out"]
    with pytest.raises(InputError, match=r"1\.png cannot be read"):
        images[1]


def test_what_is_no_regular_file_is_left_out_and_said(folder):
    """Reading a pipe would wait for ever. A folder with the name of an image is a folder."""
    os.mkfifo(folder / "cat" / "1.png")
    picture(folder / "cat" / "2.png" / "3.png")
    images = ImageFolder(folder, 8)
    assert [path.name for path in images.files] == ["0.png", "3.png", "0.png"]
    assert images.records.notes == [f"{folder}/cat/1.png is no regular file, left out"]


def test_pictures_that_are_not_read_are_said(folder):
    for name in ("cat/1.heic", "cat/2.HEIC", "dog/1.gif", "dog/about.md"):
        (folder / name).write_bytes(b"x")
    records = read(folder)
    assert records.notes == ["1 file .gif and 2 files .heic are not read, left out; convert them to PNG or JPEG"]
    assert records.ignored == ["1 file .md are no images"]
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"holds no images; .* 2 files \.heic are not read"):
        read(folder)


def test_names_of_any_bytes(folder):
    name = os.path.join(os.fsencode(folder), b"cat", b"caf\xe9.png")
    with open(name, "wb") as file:
        file.write((folder / "dog" / "0.png").read_bytes())
    images = ImageFolder(folder, 8)
    before = images.fingerprint()
    assert os.fsencode(images.files[1]) == name and images[1].shape == (3, 8, 8)
    os.utime(name, ns=(1, 1))
    assert ImageFolder(folder, 8).fingerprint() != before


def test_names_of_any_bytes_in_shards(folder, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(folder / "cat" / "0.png", os.fsdecode(b"caf\xe9.png"))
    for _ in range(2):  # the second time, by the index
        (file,) = read(tmp_path / "x.tar").files
        assert file.name == os.fsdecode(b"caf\xe9.png")


def test_an_excluded_folder_is_left_out_under_all_of_its_names(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for excluded in ("d/dog", tmp_path / "link" / "dog", folder / "cat" / ".." / "dog"):
        assert [path.parent.name for path in walk(folder, [excluded]).images] == ["cat"]
