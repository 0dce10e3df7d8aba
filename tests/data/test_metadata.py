"""Metadata beside images, in each of its formats, and the files that it names."""

import json

import pandas
import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.data.images import Images, read_records
from latentdiff.data.options import DataOptions

ROWS = [
    {
        "file_name": "b/1.png",
        "text": "a red\u2028apple",
        "label": 3,
        "objects": [{"class": "pear", "box": [0, 0, 4, 4]}],
    },
    {"file_name": "a.png", "text": 'one, two "and" three', "label": 0, "objects": []},
]


def write(folder, rows, form):
    if form == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif form == "csv":
        texts = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        pandas.DataFrame(texts).to_csv(folder / "metadata.csv", index=False)
    else:
        pandas.DataFrame(rows).to_parquet(folder / "metadata.parquet")


@pytest.fixture
def folder(tmp_path):
    for row in ROWS:
        path = tmp_path / "d" / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return tmp_path / "d"


def read(folder, **options):
    return Images(read_records(DataOptions(train_data_dir=str(folder), **options)), 8)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_every_format_says_the_same(folder, form):
    write(folder, ROWS, form)
    images = read(folder)
    assert [path.relative_to(folder).as_posix() for path in images.files] == ["b/1.png", "a.png"]
    assert images.captions == [row["text"] for row in ROWS] and images.labels == [3, 0]
    assert images.objects == [row["objects"] for row in ROWS] and images.class_names is None


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_columns_of_other_names(folder, form):
    write(folder, [{"file_name": "a.png", "prompt": "a pear", "kind": "fruit"}], form)
    images = read(folder, caption_column="prompt", label_column="kind")
    assert images.captions == ["a pear"] and images.class_names == ["fruit"]
    assert "caption_column" in images.hint("caption_column") and "kind, prompt" in images.hint("caption_column")
    with pytest.raises(InputError, match="has no column 'promt'; did you mean 'prompt'"):
        read(folder, caption_column="promt")


def test_two_formats_in_one_folder_are_refused(folder):
    write(folder, ROWS, "jsonl")
    write(folder, ROWS, "csv")
    with pytest.raises(InputError, match=r"has metadata\.csv and metadata\.jsonl; keep one of them"):
        read(folder)


def test_names_of_classes_in_csv_stay_names(folder):
    (folder / "metadata.csv").write_text("file_name,label\na.png,10\nb/1.png,x2\n")
    assert read(folder).class_names == ["10", "x2"]


def write_csv(folder, *lines):
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("texts", "labels"), [("2 0", [2, 0]), ("2.0 0.0", [2, 0]), ("+2 00", [2, 0])])
def test_numbers_of_classes_in_csv_in_every_notation(folder, texts, labels):
    """pandas writes a column with gaps as floats."""
    first, second = texts.split()
    write_csv(folder, "file_name,label", f"a.png,{first}", f"b/1.png,{second}")
    images = read(folder)
    assert images.labels == labels and images.class_names is None


def test_a_negative_class_in_csv_is_refused_as_elsewhere(folder):
    write_csv(folder, "file_name,label", "a.png,-1", "b/1.png,0")
    with pytest.raises(InputError, match="line 2: the label is -1; give a name, or a number from 0"):
        read(folder)


@pytest.mark.parametrize("text", ["1.5", "1e3", "two", "9" * 5000])
def test_what_is_no_whole_number_in_csv_is_a_name(folder, text):
    write_csv(folder, "file_name,label", f"a.png,{text}", "b/1.png,0")
    assert set(read(folder).class_names) == {text, "0"}


@pytest.mark.parametrize("text", ["nan", "#N/A", "<NA>"])
def test_a_class_that_is_missing_in_csv_is_no_class(folder, text):
    write_csv(folder, "file_name,label", f"a.png,{text}", "b/1.png,pear")
    with pytest.raises(InputError, match=r"1 of 2 images have no label, the first is a\.png"):
        read(folder)


def test_a_class_may_be_called_none(folder):
    write_csv(folder, "file_name,label", "a.png,None", "b/1.png,scratch")
    assert read(folder).class_names == ["None", "scratch"]


def test_blanks_after_commas_in_csv(folder):
    write_csv(folder, "file_name, text, label", 'a.png, "a pear, red", 1', "b/1.png, a quince, 0")
    images = read(folder)
    assert images.captions == ["a pear, red", "a quince"] and images.labels == [1, 0]


@pytest.mark.parametrize("content", ["", "file_name,text\n"])
def test_metadata_without_a_line_is_called_that(folder, content):
    (folder / "metadata.csv").write_text(content)
    with pytest.raises(InputError, match=r"metadata\.csv names no image; add lines, or take it away"):
        read(folder)


def test_a_column_of_images_of_another_name_is_asked_for(folder):
    write_csv(folder, "image,text", "a.png,a pear")
    with pytest.raises(
        InputError, match=r"line 2 has no 'file_name'; give the column as data\.image_column, known: image, text"
    ):
        read(folder)
    assert read(folder, image_column="image").captions == ["a pear"]


def test_two_columns_of_one_name_in_csv_are_refused(folder):
    write_csv(folder, "file_name,text,text", "a.png,a pear,a fruit", "b/1.png,a quince,a fruit")
    with pytest.raises(InputError, match=r"metadata\.csv has two columns 'text'; give each its own name"):
        read(folder)


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("\"['a pear'\n 'a fruit']\"", ["a pear", "a fruit"]),
        ('"[\'a pear\' ""it\'s red""]"', ["a pear", "it's red"]),
        ("\"['a pear', 'a fruit']\"", ["a pear", "a fruit"]),
        ("[a pear]", "[a pear]"),
        ("\"['a pear' 'a\"", "['a pear' 'a"),
    ],
)
def test_lists_in_csv_as_numpy_writes_them(folder, text, captions):
    write_csv(folder, "file_name,text", f"a.png,{text}", "b/1.png,a quince")
    assert read(folder).captions == [captions, "a quince"]


@pytest.mark.parametrize("text", ["['a pear', 'a fruit']", '["a pear", "a fruit"]'])
def test_lists_in_csv(folder, text):
    """As pandas writes them, and as JSON."""
    pandas.DataFrame([{"file_name": "a.png", "text": text}]).to_csv(folder / "metadata.csv", index=False)
    assert read(folder).captions == [["a pear", "a fruit"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name;text\na.png;x\n", "has the header 'file_name;text'; separate the columns by commas"),
        ("file_name,text\na.png,x,y\n", "line 2 has not 2 fields as its header"),
        ("file_name,text\na.png\n", "line 2 has not 2 fields"),
        (
            "name,text\na.png,x\n",
            "line 2 has no 'file_name'; give .* as data.image_column, did you mean .name.\?",
        ),
        ('file_name,text\na.png,"x\n', "is not CSV"),
        ("file_name,text\na.png,x\nb/1.png,\n", r"1 of 2 images have no text, the first is b/1\.png"),
    ],
)
def test_csv_that_is_wrong_is_one_line(folder, content, message):
    (folder / "metadata.csv").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_parquet_that_is_none(folder):
    (folder / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"metadata\.parquet can't be read as Parquet"):
        read(folder)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_absolute_paths(folder, tmp_path, monkeypatch, form):
    """Also where the folder itself is named by a relative path, and has its label maps beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps" / "b").mkdir(parents=True)
    for name in ("a.png", "b/1.png"):
        Image.new("L", (8, 8)).save(tmp_path / "maps" / name)
    write(folder, [{"file_name": str(folder / name)} for name in ("b/1.png", "a.png")], form)
    images = read("d", label_maps="maps")
    assert [str(path) for path in images.label_maps] == ["maps/b/1.png", "maps/a.png"]


@pytest.mark.parametrize("place", ["val", "train", "sets/test"])
def test_images_outside_of_the_folder_are_in_none_of_its_splits(folder, tmp_path, place):
    """Whatever the folders are called in which they lie."""
    (tmp_path / place).mkdir(parents=True)
    for name in "xy":
        Image.new("RGB", (8, 8)).save(tmp_path / place / f"{name}.png")
    write(folder, [{"file_name": str(tmp_path / place / f"{name}.png")} for name in "xy"], "jsonl")
    images = read(folder)
    assert [path.name for path in images.files] == ["x.png", "y.png"]
    assert not any("split" in note for note in images.records.notes)


def test_absolute_paths_outside_of_the_folder_match_by_name(folder, tmp_path):
    for name in ("one/x.png", "one/y.png", "two/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "maps").mkdir()
    for name in "xy":
        Image.new("L", (8, 8)).save(tmp_path / "maps" / f"{name}.png")
    write(folder, [{"file_name": str(tmp_path / "one" / f"{name}.png")} for name in "yx"], "jsonl")
    assert [path.name for path in read(folder, label_maps=str(tmp_path / "maps")).label_maps] == ["y.png", "x.png"]
    write(folder, [{"file_name": str(tmp_path / name / "x.png")} for name in ("one", "two")], "jsonl")
    with pytest.raises(InputError, match=r"has 'x', which is 2 files, such as .*one/x\.png and .*two/x\.png"):
        read(folder, label_maps=str(tmp_path / "maps"))


def test_paths_as_windows_writes_them(folder):
    write(folder, [{"file_name": "b\\1.png"}], "jsonl")
    assert [path.name for path in read(folder).files] == ["1.png"]


@pytest.mark.parametrize("name", ["b", "", "c.png", "a.png\0", None, 3, ["a.png"]])
def test_what_is_no_file_is_refused(folder, name):
    write(folder, [{"file_name": "a.png"}, {"file_name": name}], "jsonl")
    with pytest.raises(InputError, match=r"metadata\.jsonl (names|line 2 has) "):
        read(folder)
