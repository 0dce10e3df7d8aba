"""Images that validation holds out are not trained on, however the two sets of data are given."""

import io
import tarfile

import datasets
import pytest
from PIL import Image

from latentdiff import InputError
from latentdiff.config import from_mapping
from latentdiff.errors import LatentDiffWarning
from latentdiff.training.data import open_held_out, open_to_check, open_training_images
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe


def png(colour):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Four images, of which two are in `held`."""
    for number, name in enumerate(("0.png", "1.png", "held/2.png", "held/3.png")):
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "d"


def recipe(data, held_out, steps=1, **more):
    values = {"train_data_dir": str(data), "resolution": 8, **more}
    validation = {"data_dir": str(held_out), "steps": steps}
    return from_mapping(FirstStageRecipe, {"output_dir": "unused", "data": values, "validation": validation})


def red(images):
    """The red value of each image, by which they differ."""
    return [round((float(images[i][0, 0, 0]) + 1) * 127.5) for i in range(len(images))]


@pytest.mark.parametrize("steps", [0, 1])
def test_a_folder_in_the_folder(folder, steps):
    given = recipe(folder, folder / "held", steps)
    assert red(open_training_images(given)) == red(open_to_check(given.data, given)) == [0, 1]
    assert steps == 0 or red(open_held_out(given, 3)) == [2, 3]


def test_the_folder_by_another_name(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for held_out in ("link/held", "d/../d/held"):
        assert red(open_training_images(recipe("d", held_out))) == [0, 1]


def test_files_that_metadata_name(folder):
    names = ("0.png", "held/2.png", "1.png")
    (folder / "metadata.csv").write_text("\n".join(["file_name", *names]))
    with pytest.warns(LatentDiffWarning, match=r"1 images of .* are held out, not trained on"):
        assert red(open_training_images(recipe(folder, folder / "held"))) == [0, 1]


@pytest.mark.parametrize("link", [lambda a, b: b.symlink_to(a), lambda a, b: b.hardlink_to(a)])
def test_files_that_are_linked(folder, tmp_path, link):
    (tmp_path / "v").mkdir()
    link(folder / "0.png", tmp_path / "v" / "x.png")
    assert red(open_training_images(recipe(folder, tmp_path / "v"))) == [1, 2, 3]


def test_all_of_them_leave_nothing(folder):
    with pytest.raises(InputError, match=r"all images of .* which is held out; give others"):
        open_training_images(recipe(folder, folder))


def test_shards(tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for image in range(2):
                member = tarfile.TarInfo(f"{image}.png")
                content = png(2 * number + image)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    assert red(open_training_images(recipe(tmp_path, tmp_path / "1.tar"))) == [0, 1]
    assert red(open_training_images(recipe(tmp_path / "0.tar", tmp_path / "1.tar"))) == [0, 1]


def table(*colours):
    rows = {"image": [{"bytes": png(colour), "path": None} for colour in colours]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()}))


def test_parquet_files(tmp_path):
    (tmp_path / "v").mkdir()
    table(0, 1).to_parquet(tmp_path / "a.parquet")
    table(2, 3).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "v" / "b.parquet").symlink_to(tmp_path / "b.parquet")
    for held_out in (tmp_path / "b.parquet", tmp_path / "v"):
        assert red(open_training_images(recipe(tmp_path, held_out))) == [0, 1]


def test_a_saved_data_set_twice(tmp_path):
    table(0, 1).save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match=r"all images of .* which is held out; give others"):
        open_training_images(recipe(tmp_path / "d", tmp_path / "d"))


def test_a_share_holds_out_files_and_not_lines(folder, tmp_path):
    """Metadata may have two lines on an image, as with two captions."""
    (folder / "metadata.csv").write_text("\n".join(["file_name", *("0.png", "1.png", "held/2.png", "held/3.png") * 2]))
    values = {"output_dir": str(tmp_path / "run"), "data": {"train_data_dir": str(folder), "resolution": 16}}
    given = from_mapping(
        FirstStageRecipe,
        {
            **values,
            "model": {"block_out_channels": [8], "norm_num_groups": 4},
            "validation": {"share": 0.25, "steps": 1},
        },
    )
    seen = []

    def run(task, items, recipe, accelerator):
        seen.append(({file.name for file in items.files}, {file.name for file in task.held_out.images.files}))
        return tmp_path

    train_first_stage(given, run=run)
    ((trained, held_out),) = seen
    assert held_out and trained and not trained & held_out
