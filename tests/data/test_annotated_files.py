"""Annotations are of one file or refused, their boxes in the frame that they say, and as real tools write them."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.data.frames import orientation_of
from latentdiff.data.images import Images, read_records
from latentdiff.data.layouts import read_layouts, resolve_box_format
from latentdiff.data.names import match_names
from latentdiff.data.options import DataOptions
from latentdiff.io.boxes import turn
from latentdiff.io.images import read_pixels

SIDE = 32


def picture(path, size=(SIDE, SIDE), orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


def coco(images, annotations, **more):
    """A file of COCO's form: names or entries of images, and annotations with the usual things filled in."""
    images = [
        {"id": i, "file_name": item, "width": SIDE, "height": SIDE} if isinstance(item, str) else item
        for i, item in enumerate(images)
    ]
    annotations = [{"id": i, "image_id": 0, "category_id": 1, **item} for i, item in enumerate(annotations)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}], **more}


@pytest.fixture
def read(tmp_path):
    def read(content, **options):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        given = {"train_data_dir": str(tmp_path / "d"), "annotations": str(tmp_path / "a.json"), **options}
        return Images(read_records(DataOptions(**given)), SIDE)

    return read


def boxes(images):
    return [
        [item["box"] for item in layout.seen(images.views.centre(0))]
        for layout in read_layouts(images, *resolve_box_format(images, None, None))
    ]


# Names


def files_of(images):
    return [path.relative_to(images.root).as_posix() for path in images.files]


def test_a_bare_name_of_two_files_is_refused(read, tmp_path):
    picture(tmp_path / "d/day/1.png")
    picture(tmp_path / "d/night/1.png")
    content = coco(["1.png"], [{"bbox": [0, 0, 8, 8]}])
    with pytest.raises(InputError, match=r"'1\.png', which is 2 files, such as .*day/1\.png and .*night/1\.png"):
        read(content)
    (tmp_path / "d/night/1.png").unlink()
    assert files_of(read(content)) == ["day/1.png"]


def test_whole_paths_come_first(read, tmp_path):
    for name in ("1.png", "day/1.png", "night/1.png"):
        picture(tmp_path / "d" / name)
    content = coco(["night/1.png", "1.png"], [{"image_id": i, "bbox": [0, 0, 8 * i + 8, 8]} for i in range(2)])
    images = read(content)
    assert files_of(images) == ["1.png", "night/1.png"]
    assert [objects[0]["box"][2] for objects in images.objects] == [16, 8]


def test_two_names_for_one_file_are_refused(read, tmp_path):
    picture(tmp_path / "d/1.png")
    with pytest.raises(InputError, match=r"'day/1\.png' and 'night/1\.png', which both seem to mean .*d/1\.png"):
        read(coco(["day/1.png", "night/1.png"], []))
    assert files_of(read(coco(["night/1.png"], []))) == ["1.png"]


@pytest.mark.parametrize(
    "name", ["images/day/1.png", "./day/1.png", "day\\1.png", "d/day/1.png", "/elsewhere/day/1.png", "{d}/day/1.png"]
)
def test_paths_that_begin_elsewhere_match_by_their_end(read, tmp_path, name):
    picture(tmp_path / "d/day/1.png")
    picture(tmp_path / "d/night/1.png")
    assert files_of(read(coco([name.format(d=tmp_path / "d")], []))) == ["day/1.png"]


def test_the_folder_of_one_of_several_splits(read, tmp_path):
    """The file has all of them, with names that occur in each."""
    picture(tmp_path / "d/train/1.png")
    picture(tmp_path / "d/val/1.png")
    content = coco(["train/1.png", "val/1.png"], [{"image_id": 1, "bbox": [0, 0, 8, 8]}])
    images = read(content, train_data_dir=str(tmp_path / "d" / "val"))
    assert len(images.objects[0]) == 1
    assert read(content, train_data_dir=str(tmp_path / "d" / "train")).objects == [[]]


def test_accents_in_either_form(tmp_path):
    assert match_names(["caf\u00e9.png"], [str(tmp_path / "cafe\u0301.png")], tmp_path, "x") == ["caf\u00e9.png"]
    assert match_names(["cafe.png"], [str(tmp_path / "cafe\u0301.png")], tmp_path, "x") == [None]


def test_label_maps_match_in_the_same_way(tmp_path):
    for name in ("d/day/1.png", "d/night/1.png", "maps/1.png"):
        picture(tmp_path / name)
    options = DataOptions(train_data_dir=str(tmp_path / "d"), label_maps=str(tmp_path / "maps"))
    with pytest.raises(InputError, match="has '1', which is 2 files"):
        read_records(options)
    picture(tmp_path / "maps/day/1.png")
    with pytest.raises(InputError, match="has '1', which is 2 files"):
        read_records(options)
    picture(tmp_path / "maps/night/1.png")
    maps = read_records(options).columns["label_map"]
    assert [path.relative_to(tmp_path / "maps").as_posix() for path in maps] == ["day/1.png", "night/1.png"]


def test_what_is_no_image_is_no_label_map(tmp_path):
    """Such as the JSON of an annotation tool beside its masks."""
    picture(tmp_path / "d/1.png")
    picture(tmp_path / "maps/1.png")
    (tmp_path / "maps/1.txt").write_text("x")
    options = DataOptions(train_data_dir=str(tmp_path / "d"), label_maps=str(tmp_path / "maps"))
    assert [path.name for path in read_records(options).columns["label_map"]] == ["1.png"]
    picture(tmp_path / "maps/1.bmp")
    with pytest.raises(InputError, match=r"has .*1\.bmp and .*1\.png for one image; keep one"):
        read_records(options)
    for path in (tmp_path / "maps").glob("*.[pb]*"):
        path.unlink()
    with pytest.raises(InputError, match=r"1 of 1 images have no label map .*; maps are images"):
        read_records(options)


# Frames


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (16, 16), (64.0, "64")])
def test_boxes_of_the_image_in_another_size(read, tmp_path, size):
    picture(tmp_path / "d/1.png", (SIDE, SIDE))
    width = float(size[0])
    image = {"id": 0, "file_name": "1.png", "width": size[0], "height": size[1]}
    assert boxes(read(coco([image], [{"bbox": [0, 0, width / 2, width / 2]}]))) == [[(0, 0, 0.5, 0.5)]]


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (40, 32)])
def test_boxes_of_an_image_of_another_shape_are_refused(read, tmp_path, size):
    picture(tmp_path / "d/1.png", (SIDE, SIDE))
    image = {"id": 0, "file_name": "1.png", "width": size[0], "height": size[1]}
    with pytest.raises(
        InputError, match=rf"1\.png is 32x32 pixels, but its boxes are of an image of {size[0]}x{size[1]}"
    ):
        boxes(read(coco([image], [{"bbox": [0, 0, 8, 8]}])))
    assert boxes(read(coco([image], []))) == [[]]  # without boxes, there is nothing to be wrong


def test_a_pixel_that_was_rounded_off_is_no_other_shape(read, tmp_path):
    picture(tmp_path / "d/1.png", (320, 213))
    for height in (427, 426):
        image = {"id": 0, "file_name": "1.png", "width": 640, "height": height}
        ((box,),) = boxes(read(coco([image], [{"bbox": [160, 0, 320, 427]}])))
        assert np.allclose(np.array(box) * 213, (80 - 53, 0, 240 - 53, 213))  # the square begins at x 53


@pytest.mark.parametrize("size", [None, 0, "?"])
def test_without_a_size_boxes_are_of_the_file(read, tmp_path, size):
    picture(tmp_path / "d/1.png", (SIDE, SIDE))
    image = {"id": 0, "file_name": "1.png"} | ({} if size is None else {"width": size, "height": size})
    images = read(coco([image], [{"bbox": [16, 0, 99, 16]}, {"bbox": [40, 0, 8, 8]}]))
    assert boxes(images) == [[(0.5, 0, 1, 0.5)]]
    assert "1 boxes of 1.png are outside of it" in images.records.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pixels_do(tmp_path, orientation):
    """The marked part of an image, whether it is found after the turn or turned as a box."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[4:8, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    assert orientation_of(tmp_path / "1.png") == orientation
    (picture(tmp_path / "x" / "1.png")).write_bytes((tmp_path / "1.png").read_bytes())
    images = Images(read_records(DataOptions(train_data_dir=str(tmp_path / "x"))), SIDE)
    upright = read_pixels(images.files[0], np.asarray)
    rows, columns = np.nonzero(upright[..., 0])
    height, width = upright.shape[:2]
    expected = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    assert np.allclose(turn((10 / 40, 4 / 20, 30 / 40, 8 / 20), orientation), expected)


@pytest.mark.parametrize(("size", "box"), [((32, 64), (0, 0, 0.5, 0.5)), ((64, 32), (0.5, 0, 1, 0.5))])
def test_exif_is_told_by_the_size(read, tmp_path, size, box):
    """The file is stored as 64x32 and shown as 32x64; the square in the middle is trained on."""
    picture(tmp_path / "d/1.jpg", (64, 32), orientation=6)
    image = {"id": 0, "file_name": "1.jpg", "width": size[0], "height": size[1]}
    inside = [0, 16, 16, 16] if size == (32, 64) else [16, 0, 16, 16]
    assert boxes(read(coco([image], [{"bbox": inside}]))) == [[box]]


@pytest.mark.parametrize(("size", "orientation"), [((32, 32), 6), ((64, 32), 3), ((64, 32), 2)])
def test_exif_that_the_size_does_not_tell_is_refused(read, tmp_path, size, orientation):
    picture(tmp_path / "d/1.jpg", size, orientation)
    content = coco([{"id": 0, "file_name": "1.jpg", "width": size[0], "height": size[1]}], [{"bbox": [16, 0, 8, 8]}])
    with pytest.raises(
        InputError, match=rf"1\.jpg is turned by its EXIF orientation {orientation}, and its annotations"
    ):
        boxes(read(content))
    picture(tmp_path / "d/1.jpg", size, orientation=1)
    assert len(boxes(read(content))[0]) == 1


def test_metadata_and_tables_say_the_frame_as_well(tmp_path):
    picture(tmp_path / "d/1.png", (SIDE, SIDE))
    row = {"file_name": "1.png", "width": 64, "height": 64, "objects": [{"class": "car", "box": [0, 0, 32, 32]}]}
    (tmp_path / "d" / "metadata.jsonl").write_text(json.dumps(row))
    (tmp_path / "t").mkdir()
    table = {"image": [str(tmp_path / "d/1.png")], "width": [64], "height": [64], "objects": [row["objects"]]}
    datasets.Dataset.from_dict(table).cast_column("image", datasets.Image()).save_to_disk(tmp_path / "t")
    for source in ("d", "t"):
        images = Images(read_records(DataOptions(train_data_dir=str(tmp_path / source))), SIDE)
        assert boxes(images) == [[(0, 0, 0.5, 0.5)]]


def test_objects_as_a_mapping_of_lists(tmp_path):
    """As the documentation of `datasets` has them for imagefolder."""
    picture(tmp_path / "d/1.png")
    objects = {"id": [7], "area": [256], "bbox": [[0, 0, 16, 16]], "categories": [3]}
    (tmp_path / "d" / "metadata.jsonl").write_text(json.dumps({"file_name": "1.png", "objects": objects}))
    table = {"image": [str(tmp_path / "d/1.png")], "objects": [objects]}
    datasets.Dataset.from_dict(table).cast_column("image", datasets.Image()).save_to_disk(tmp_path / "t")
    for source in ("d", "t"):
        images = Images(read_records(DataOptions(train_data_dir=str(tmp_path / source))), SIDE)
        assert images.objects == [[{"class": 3, "box": [0, 0, 16, 16]}]]


@pytest.mark.parametrize("label", [None, "", " ", -1, True, 1.5, ["car"]], ids=repr)
def test_what_is_no_class_names_the_image(tmp_path, label):
    picture(tmp_path / "d/1.png")
    row = {
        "file_name": "1.png",
        "objects": [{"class": "car", "box": [0, 0, 8, 8]}, {"class": label, "box": [0, 0, 8, 8]}],
    }
    (tmp_path / "d" / "metadata.jsonl").write_text(json.dumps(row))
    images = Images(read_records(DataOptions(train_data_dir=str(tmp_path / "d"))), SIDE)
    with pytest.raises(InputError, match=r"1\.png: object 1 is of the class .*; give a name, or a number from 0"):
        boxes(images)


# What tools write


def test_ids_as_texts_and_a_mark_at_the_start(read, tmp_path):
    picture(tmp_path / "d/1.png")
    image = {"id": "7", "file_name": "1.png", "width": SIDE, "height": SIDE}
    content = coco([image], [{"image_id": 7, "category_id": "1", "bbox": ["0", "0", "8", "8"], "iscrowd": "0"}])
    content["categories"] = [{"id": 1.0, "name": "car", "supercategory": None}]
    assert read("\ufeff" + json.dumps(content)).objects == [[{"class": "car", "box": [0, 0, 8, 8]}]]


@pytest.mark.parametrize("item", [{"bbox": []}, {"bbox": None}, {}, {"bbox": [4, 8, 8, 8], "segmentation": []}])
def test_a_box_that_is_missing_is_that_of_the_polygon(read, tmp_path, item):
    picture(tmp_path / "d/1.png")
    polygon = {"segmentation": [[4, 8, 12, 8, 12, 16], [4, 10, 5, 11]], **item}
    assert read(coco(["1.png"], [polygon])).objects[0] == [{"class": "car", "box": [4, 8, 8, 8]}]


@pytest.mark.parametrize(
    "item",
    [{"bbox": [], "segmentation": []}, {"bbox": [0, 0, 0, 8]}, {"segmentation": {"counts": "x", "size": [1, 1]}}],
    ids=repr,
)
def test_an_empty_box_is_left_out_and_said(read, tmp_path, item):
    picture(tmp_path / "d/1.png")
    images = read(coco(["1.png"], [item, {"bbox": [0, 0, 8, 8]}]))
    assert len(images.objects[0]) == 1
    assert "1 boxes are empty, left out; the first is annotation 0 of 1.png" in images.records.notes[0]


def test_annotations_of_images_that_are_not_listed(read, tmp_path):
    picture(tmp_path / "d/1.png")
    images = read(coco(["1.png"], [{"image_id": 99, "bbox": [0, 0, 8, 8]}]))
    assert images.objects == [[]]
    assert "1 annotations are of images that the file does not list, left out" in images.records.notes[0]


def test_images_that_are_not_in_the_folder_are_no_fault(read, tmp_path):
    picture(tmp_path / "d/1.png")
    images = read(coco(["1.png", "2.png"], [{"image_id": 1, "bbox": [0, 0, 8, 8]}]))
    assert images.objects == [[]] and images.records.notes == []
    assert images.records.ignored[-1].endswith(f"has 1 images that are not in {tmp_path / 'd'}")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"bbox": [1, 2, 3]}, r"annotation 0 of 1\.png has the bbox \[1, 2, 3\]"),
        ({"bbox": ["a", 0, 1, 1]}, r"annotation 0 of 1\.png has the bbox"),
        ({"bbox": [0, 0, 8, 8], "category_id": 2}, r"annotation 0 of 1\.png is of the category 2, which has no name"),
    ],
)
def test_what_is_wrong_names_the_image(read, tmp_path, item, message):
    picture(tmp_path / "d/1.png")
    with pytest.raises(InputError, match=message):
        read(coco(["1.png"], [item]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco([{"id": 5}], []), r"image 5 has None as file_name"),
        (
            coco(["1.png", {"id": 1, "file_name": "1.png", "width": 9, "height": 9}], []),
            "1.png is listed twice, in two",
        ),
        ([], "can't be read"),
        ({"images": [{"file_name": "1.png"}], "annotations": []}, "can't be read .*no 'id'"),
        ("[" * 100_000, "can't be read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_files_that_are_wrong_are_one_line(read, tmp_path, content, message):
    picture(tmp_path / "d/1.png")
    with pytest.raises(InputError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)


# What can be taken for another


def test_images_of_one_id_are_refused(read, tmp_path):
    """Two exports that were put together without new numbers: all boxes would be those of the last image."""
    for name in ("1.png", "2.png"):
        picture(tmp_path / "d" / name)
    entries = [{"id": 0, "file_name": name, "width": SIDE, "height": SIDE} for name in ("1.png", "2.png")]
    with pytest.raises(InputError, match=r"1\.png and 2\.png have the id 0, .*; number the images anew"):
        read(coco(entries, [{"bbox": [0, 0, 8, 8]}]))
    assert len(read(coco([entries[0], entries[0]], [{"bbox": [0, 0, 8, 8]}])).objects[0]) == 1  # twice the same
    entries[1]["id"] = 1
    assert len(read(coco(entries, [{"bbox": [0, 0, 8, 8]}]))) == 2


def test_categories_of_one_id_are_refused(read, tmp_path):
    picture(tmp_path / "d/1.png")
    categories = [{"id": 1, "name": "car"}, {"id": 1, "name": "bus"}]
    with pytest.raises(InputError, match="the categories 'car' and 'bus' have the id 1; number the categories anew"):
        read(coco(["1.png"], [{"bbox": [0, 0, 8, 8]}], categories=categories))
    for second in ({"id": 1, "name": "car"}, {"id": 2, "name": "car"}):
        images = read(coco(["1.png"], [{"bbox": [0, 0, 8, 8]}], categories=[categories[0], second]))
        assert images.objects[0][0]["class"] == "car"


@pytest.mark.parametrize("largest", [0.5, 1])
def test_coco_boxes_that_look_relative_are_refused(read, tmp_path, largest):
    picture(tmp_path / "d/1.png")
    with pytest.raises(InputError, match=r"no box reaches beyond 1, .*; COCO's are in pixels"):
        read(coco(["1.png"], [{"bbox": [0, 0.25, 0.5, largest]}]))
    assert read(coco(["1.png"], [{"bbox": [0, 0.25, 0.5, 1]}, {"bbox": [0, 0, 2, 2]}])).objects[0]
    assert read(coco(["1.png"], [])).objects == [[]]


@pytest.mark.parametrize(("right", "refused"), [("16", True), ("1.6", True), ("1.2", False), ("0.5", False)])
def test_boxes_of_open_images_in_pixels_are_refused(tmp_path, right, refused):
    picture(tmp_path / "d/1.png")
    (tmp_path / "a.csv").write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax\n1,car,0,{right},0,0.5\n")
    options = DataOptions(train_data_dir=str(tmp_path / "d"), annotations=str(tmp_path / "a.csv"))
    if refused:
        with pytest.raises(InputError, match=rf"line 2 has a box that reaches to {right}; .* from 0 to 1"):
            read_records(options)
    else:
        assert read_records(options).columns["objects"][0][0]["box"] == [0, 0, min(float(right), 1), 0.5]


@pytest.mark.parametrize(
    ("degrees", "box"),
    [
        (0, [8, 12, 16, 8]),
        (180, [8, 12, 16, 8]),
        (90, [12, 8, 8, 16]),
        (-90, [12, 8, 8, 16]),
        (45, [16 - 72**0.5, 16 - 72**0.5, 288**0.5, 288**0.5]),  # (16 + 8) / 2 ** 0.5 each way
        (None, [8, 12, 16, 8]),
    ],
)
def test_a_box_that_cvat_turned_is_the_box_around_it(read, tmp_path, degrees, box):
    picture(tmp_path / "d/1.png")
    images = read(coco(["1.png"], [{"bbox": [8, 12, 16, 8], "attributes": {"rotation": degrees}}]))
    assert images.objects[0][0]["box"] == pytest.approx(box, abs=1e-3)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", range(4))
def test_boxes_that_are_not_finite_are_refused(read, tmp_path, place, number):
    picture(tmp_path / "d/1.png")
    box = [0, 0, 8, 8]
    box[place] = number
    with pytest.raises(InputError, match=r"annotation 0 of 1\.png has the bbox .*; give four numbers"):
        read(coco(["1.png"], [{"bbox": box}]))


def test_two_files_of_objects_are_refused(read, tmp_path):
    """The second would take the place of the first; one of captions beside one of objects is what COCO has."""
    picture(tmp_path / "d/1.png")
    paths = [str(tmp_path / name) for name in ("b.json", "c.json")]
    (tmp_path / "b.json").write_text(json.dumps(coco(["1.png"], [{"bbox": [0, 0, 8, 8]}])))
    with pytest.raises(InputError, match=r"a\.json and .*b\.json both have objects; make them one file"):
        read(coco(["1.png"], [{"bbox": [8, 8, 8, 8]}]), annotations=[str(tmp_path / "a.json"), paths[0]])
    captions = {"images": coco(["1.png"], [])["images"], "annotations": [{"id": 0, "image_id": 0, "caption": "a car"}]}
    (tmp_path / "c.json").write_text(json.dumps(captions))
    images = read("", annotations=paths)
    assert images.captions == [["a car"]] and len(images.objects[0]) == 1 and not images.records.notes


def test_captions_beside_images_give_way_to_annotations_and_that_is_said(read, tmp_path):
    picture(tmp_path / "d/1.png")
    (tmp_path / "d/1.txt").write_text("a bus")
    content = {"images": coco(["1.png"], [])["images"], "annotations": [{"id": 0, "image_id": 0, "caption": "a car"}]}
    images = read(content)
    assert images.captions == [["a car"]] and "has captions of its own, left out" in images.records.notes[0]
