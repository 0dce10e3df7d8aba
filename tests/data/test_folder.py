"""Captions and classes of a folder of images, from sub-folders or metadata."""

import json

import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.data.folder import read_folder
from latentdiff.data.images import ImageFolder
from latentdiff.data.options import DataOptions
from latentdiff.labels import class_number

NAMES = ("b/2.png", "a/1.png", "a/c/3.png")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def describe(folder, rows):
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def rows(**columns):
    return [
        {"file_name": name, **{column: values[i] for column, values in columns.items()}} for i, name in enumerate(NAMES)
    ]


def test_sub_folders_are_classes(folder):
    images = ImageFolder(folder, 8)
    names = [path.relative_to(folder).as_posix() for path in images.files]
    assert dict(zip(names, images.labels, strict=True)) == {"a/1.png": 0, "a/c/3.png": 0, "b/2.png": 1}
    assert images.class_names == ["a", "b"] and images.num_classes == 2 and images.captions is None


def test_captions_of_any_text(folder):
    """JSON may hold what str.splitlines takes for the end of a line; editors may begin a file with a mark."""
    texts = ["one\u2028two", "one\u0085two", "x"]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(text=texts)]
    (folder / "metadata.jsonl").write_text("\ufeff" + "\r\n".join(lines) + "\n\n", encoding="utf-8")
    assert ImageFolder(folder, 8).captions == texts
    (folder / "metadata.jsonl").write_bytes(json.dumps(rows(text=texts)[0])[:-1].encode() + b', "b": "\xe9"}')
    with pytest.raises(InputError, match="is not UTF-8"):
        ImageFolder(folder, 8)


def test_images_that_metadata_leave_out_are_said(folder):
    describe(folder, rows(text=["x", "y", "z"])[:1])
    records = read_folder(DataOptions(train_data_dir=str(folder)))
    assert records.notes == [f"{folder}: 2 images are not in metadata.jsonl, left out"]


def test_what_a_run_writes_and_maps_are_no_data(folder, monkeypatch):
    for name in ("run/validation/samples-4.png", *(f"maps/{name}" for name in NAMES)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(folder / name)
    monkeypatch.chdir(folder.parent)
    options = DataOptions(train_data_dir=folder.name, label_maps=str(folder / "maps"))
    files = read_folder(options, folder / "run").files
    assert [path.name for path in files] == ["1.png", "3.png", "2.png"]


def test_an_image_beside_the_sub_folders_means_no_classes(folder):
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    images = ImageFolder(folder, 8)
    assert len(images) == 4 and images.labels is None and images.class_names is None and images.num_classes == 0


def test_metadata_with_names_numbers_and_captions(folder):
    describe(folder, rows(label=["cat", "dog", "cat"], text=["x", "y", "z"]))
    images = ImageFolder(folder, 8)
    assert images.labels == [0, 1, 0] and images.class_names == ["cat", "dog"] and images.captions == ["x", "y", "z"]
    assert [path.name for path in images.files] == ["2.png", "1.png", "3.png"]
    describe(folder, rows(label=[3, 0, 1]))
    images = ImageFolder(folder, 8)
    assert images.labels == [3, 0, 1] and images.class_names is None and images.num_classes == 4
    describe(folder, rows(text=["x", "y", "z"]))
    assert ImageFolder(folder, 8).labels is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (rows(label=["cat", 1, "dog"]), "line 2: the label is 1"),
        (rows(label=[0, True, 1]), "line 2: the label is True"),
        (rows(label=[0, -1, 1]), "line 2: the label is -1"),
        ([*rows(label=[0, 1, 1])[:2], {"file_name": NAMES[2]}], "'label' is in 2 of 3 lines, not in that of a/c/3.png"),
        ([{"file_name": NAMES[0]}, *rows(text=["x", "y", "z"])], "'text' is in 3 of 4 lines, not in that of b/2.png"),
        ([{"text": "x"}], "line 1 has no 'file_name'; give the column as data.image_column, known: text"),
        ([{"file_name": "absent.png"}], "names absent.png, which does not exist"),
    ],
)
def test_lines_that_do_not_fit_are_named(folder, lines, message):
    describe(folder, lines)
    with pytest.raises(InputError, match=message):
        ImageFolder(folder, 8)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["caf\u00e9", "cafe\u0301"], ["caf\u00e9"]),  # of Linux, and of macOS
        (["cat", "cat "], ["cat"]),
        (["Cat", "cat"], ["Cat", "cat"]),
        (["cafe", "caf\u00e9"], ["cafe", "caf\u00e9"]),
    ],
)
def test_names_of_classes_that_look_alike_are_one_class(tmp_path, names, expected):
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    images = ImageFolder(tmp_path, 8)
    assert images.class_names == expected and len(images) == 2
    assert class_number(names[1], len(expected), images.class_names) == len(expected) - 1


def test_numbers_of_classes_end_before_ids_begin(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    for label, message in (
        (2**20 - 1, None),
        (2**20, "1048576; give a name, or a number from 0 to 1048575"),
        (10**20, ""),
    ):
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "label": label}))
        if message is None:
            assert ImageFolder(tmp_path, 8).labels == [label]
        else:
            with pytest.raises(InputError, match=rf"the label of 0\.png is .*{message}"):
                ImageFolder(tmp_path, 8)


@pytest.mark.parametrize(("others", "said"), [(["0.png"], True), (["1.png"], False), (["a/0.png"], False)])
def test_images_that_differ_by_their_suffix_alone_are_said(tmp_path, others, said):
    """Label maps and masks beside their images would be trained on."""
    for name in ("0.jpg", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    notes = ImageFolder(tmp_path, 8).records.notes
    assert len(notes) == said and all("1 images differ from others by their suffix alone" in note for note in notes)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["0_seg.png"], 1),
        (["0-Mask.png", "0_labelIds.png"], 2),
        (["1_seg.png"], 0),
        (["a/0_seg.png"], 0),
        (["0_segment.png"], 0),
        (["0seg.png"], 0),
        (["_seg.png"], 0),
    ],
)
def test_images_that_are_named_like_maps_of_others_are_said(tmp_path, others, said):
    for name in ("0.jpg", *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    records = ImageFolder(tmp_path, 8).records
    begin = f"{said} images are named like label maps or masks of others, the first is "
    assert [note[: len(begin)] for note in records.notes] == [begin] * bool(said)
    if said:
        first = min(others)
        assert f"{tmp_path / first} beside {tmp_path / '0.jpg'}; they are read as images" in records.notes[0]
    describe(tmp_path, [{"file_name": name} for name in ("0.jpg", *others)])
    assert ImageFolder(tmp_path, 8).records.notes == []  # who names them means them
