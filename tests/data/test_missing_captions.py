"""A caption that is missing, in any disguise and in any source, names its image; captions beside images are found."""

import io
import json
import tarfile

import datasets
import pandas
import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.data.images import Images, read_records
from latentdiff.data.options import DataOptions

MISSING = [None, float("nan"), "", " \n", "nan", "None", "null", "<NA>", "N/A", "#N/A", "\u200b", "\ufeff", []]
WRONG = [
    ["a pear", None],
    ["a pear", " "],
    ["a pear", 3],
    {"en": "a pear"},
    True,
    3,
    2.5,
    [["a pear"]],
    ["nan"],
    "a\0 \0p\0",  # UTF-16 without a mark, read as UTF-8
]


def read(folder, **options):
    return Images(read_records(DataOptions(train_data_dir=str(folder), **options)), 8)


def png():
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


def as_folder(folder, texts):
    for i in range(len(texts)):
        (folder / f"{i}.png").write_bytes(png())
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def as_shards(folder, texts):
    with tarfile.open(folder / "0.tar", "w") as archive:
        for i, text in enumerate(texts):
            for name, content in ((f"{i}.png", png()), (f"{i}.json", json.dumps({"text": text}).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def as_table(folder, texts):
    rows = {"image": [{"bytes": png(), "path": None}] * len(texts), "text": texts}
    table = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    table.to_parquet(folder / "0.parquet")


def as_csv(folder, texts):
    as_folder(folder, texts)
    (folder / "metadata.jsonl").unlink()
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    pandas.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)


def as_annotations(folder, texts):
    for i in range(len(texts)):
        (folder / f"{i}.png").write_bytes(png())
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(len(texts))]
    captions = [{"id": i, "image_id": i, "caption": text} for i, text in enumerate(texts)]
    (folder / "a.json").write_text(json.dumps({"images": images, "annotations": captions}))


def as_files(folder, texts):
    as_folder(folder, texts)
    (folder / "metadata.jsonl").unlink()
    for i, text in enumerate(texts):
        if text is not None:
            (folder / f"{i}.txt").write_text(text)


SOURCES = {"folder": as_folder, "shards": as_shards}
NAMES = {"folder": r"1\.png", "shards": r"1\.png"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("text", MISSING, ids=repr)
def test_a_missing_caption_names_its_image(tmp_path, source, text):
    SOURCES[source](tmp_path, ["a red apple", text])
    with pytest.raises(InputError, match=rf"1 of 2 images have no text, the first is .*{NAMES[source]}"):
        read(tmp_path)
    SOURCES[source](tmp_path, ["a red apple", "a pear"])
    assert read(tmp_path).captions == ["a red apple", "a pear"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("text", WRONG, ids=repr)
def test_what_is_no_caption_names_its_image(tmp_path, source, text):
    SOURCES[source](tmp_path, ["a red apple", text])
    with pytest.raises(InputError, match=rf"the text of .*{NAMES[source]} is .*; give a caption, or a list"):
        read(tmp_path)
    SOURCES[source](tmp_path, ["a red apple", ["a pear", "a fruit"]])
    assert read(tmp_path).captions == ["a red apple", ["a pear", "a fruit"]]


@pytest.mark.parametrize("text", [None, "", " ", "nan"], ids=repr)
@pytest.mark.parametrize("write", [as_table, as_csv, as_files])
def test_a_missing_caption_in_tables_and_files(tmp_path, write, text):
    write(tmp_path, ["a red apple", text])
    with pytest.raises(InputError, match=r"1 of 2 images have no text, the first is (1\.png|.* row 1);"):
        read(tmp_path)


@pytest.mark.parametrize("texts", [[["a pear"], ["a", None]], [1, 2], [[], ["a"]]], ids=repr)
def test_what_is_no_caption_in_a_table(tmp_path, texts):
    as_table(tmp_path, texts)
    with pytest.raises(InputError, match=r"(the text of|the first is) .* row [01]"):
        read(tmp_path)


@pytest.mark.parametrize("text", [None, 3, ["a"]], ids=repr)
def test_what_is_no_caption_in_annotations(tmp_path, text):
    as_annotations(tmp_path, ["a red apple", text])
    with pytest.raises(InputError, match=r"a caption of 1\.png is .*; give a text, or drop it"):
        read(tmp_path, annotations=str(tmp_path / "a.json"))


def test_no_captions_at_all_are_none(tmp_path):
    """For what needs none."""
    as_folder(tmp_path, [None, " "])
    assert read(tmp_path).captions is None


def test_captions_beside_the_images(tmp_path):
    as_files(tmp_path, ["\ufeffa red apple\n", "two\nlines"])
    (tmp_path / "readme.txt").write_text("no caption")
    images = read(tmp_path)
    assert images.captions == ["a red apple", "two\nlines"] and images.labels is None
    assert images.records.ignored == ["1 file .txt are no images"]


def test_captions_beside_the_images_of_classes(tmp_path):
    """Both are known then, and a recipe takes what it needs."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        as_files(tmp_path / name, [f"a {name}"])
    images = read(tmp_path)
    assert images.captions == ["a cat", "a dog"] and images.class_names == ["cat", "dog"]


def test_captions_beside_images_where_metadata_has_none(tmp_path):
    as_files(tmp_path, ["zero", "one"])
    rows = [{"file_name": f"{i}.png", "label": i} for i in (1, 0)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    images = read(tmp_path)
    assert images.captions == ["one", "zero"] and images.labels == [1, 0]


def test_captions_in_files_of_another_suffix(tmp_path):
    as_files(tmp_path, ["a", "b"])
    (tmp_path / "0.caption").write_text("c")
    (tmp_path / "1.caption").write_text("d")
    assert read(tmp_path).captions == ["a", "b"] and read(tmp_path, caption_column="caption").captions == ["c", "d"]
    with pytest.raises(InputError, match=r"caption_column is given, but .* no file \.tags beside an image"):
        read(tmp_path, caption_column="tags")


def test_boxes_of_yolo_are_no_captions(tmp_path):
    as_files(tmp_path, ["0 0.5 0.5 0.2 0.1\n3 0.5 0.5 1e-1 0.1", "12 apples and 3 pears 4 5"])
    images = read(tmp_path)
    assert images.captions is None and "0.txt and 0 more hold boxes as YOLO writes them" in images.records.notes[0]
    as_files(tmp_path, ["0 apples", "12 apples and 3 pears 4 5"])
    assert read(tmp_path).captions == ["0 apples", "12 apples and 3 pears 4 5"]


def test_captions_that_are_no_utf8(tmp_path):
    as_files(tmp_path, ["a", "b"])
    (tmp_path / "1.txt").write_bytes("ein Apfel".encode("utf-16"))
    with pytest.raises(InputError, match=r"1\.txt is not UTF-8 .*; save it as UTF-8"):
        read(tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NO_TEXTS = {
    "a pointer": (POINTER, "is a pointer of Git LFS, in place of the file itself; fetch the file with git lfs pull"),
    "Latin-1": ("caf\u00e9".encode("latin-1"), "is not UTF-8"),
    "UTF-16": ("a pear".encode("utf-16"), "is not UTF-8"),
}


@pytest.mark.parametrize("name", NO_TEXTS)
def test_texts_that_are_none_name_their_file_in_every_source(tmp_path, name):
    content, message = NO_TEXTS[name]
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "0.png").write_bytes(png())
    for file in ("0.txt", "metadata.jsonl", "metadata.csv"):
        (tmp_path / "d" / file).write_bytes(content)
        with pytest.raises(InputError, match=f"{file} {message}"):
            read(tmp_path / "d")
        (tmp_path / "d" / file).unlink()
    for file in ("a.json", "a.csv"):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(InputError, match=f"{file} {message}"):
            read(tmp_path / "d", annotations=str(tmp_path / file))


def shard(folder, **members):
    """A shard of an image and the members that are given by their suffixes."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as archive:
        for suffix, content in {"png": png(), **members}.items():
            member = tarfile.TarInfo(f"0.{suffix}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize("suffix", ["txt", "json"])
@pytest.mark.parametrize("name", NO_TEXTS)
def test_texts_that_are_none_name_their_member_of_a_shard(tmp_path, suffix, name):
    content, message = NO_TEXTS[name]
    with pytest.raises(InputError, match=rf"0\.tar/0\.{suffix} {message}"):
        read(shard(tmp_path / "d", **{suffix: content}))


@pytest.mark.parametrize("content", [b"{'text': 'a pear'}", b'{"text": "a pear",}', b'{"text": "a'])
def test_json_in_shards_that_is_none_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"0\.tar/0\.json is not JSON .*; correct it"):
        read(shard(tmp_path / "d", json=content))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_mark_at_the_start_is_no_part_of_a_caption_in_a_shard(tmp_path, mark):
    assert read(shard(tmp_path / "a", txt=mark + b"a pear\r\n")).captions == ["a pear"]
    assert read(shard(tmp_path / "b", json=mark + b'{"text": "a pear"}')).captions == ["a pear"]


@pytest.mark.parametrize("suffix", ["txt", "TXT", "Txt"])
def test_captions_beside_the_images_in_any_case(tmp_path, suffix):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / f"0.{suffix}").write_text("a pear")
    images = read(tmp_path)
    assert images.captions == ["a pear"] and not images.records.ignored
