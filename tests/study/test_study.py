import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from small_studies import NAMES, SIZE, picture

from latentdiff.errors import BadFileError, InputError
from latentdiff.study.images import EVIDENT, degraded, is_evident
from latentdiff.study.store import open_store
from latentdiff.study.study import open_study
from latentdiff.study.texts import ENGLISH, TASKS, read_texts


def opened(folders, **options):
    return open_study(folders.ours, folders.theirs, folders.truth, **{"checks": 2, **options})


def refused(folders, message, **options):
    with pytest.raises(InputError) as told:
        opened(folders, **options)
    assert message in str(told.value)


def test_tasks_are_those_of_the_paper(folders):
    two = open_study(folders.ours, folders.theirs)
    assert two.facts.pairs == 6
    three = opened(folders)
    assert (three.facts.images, three.facts.pairs, three.facts.pairs_each) == (6, 18, 18)
    roles = {frozenset((pair.left, pair.right)) for pair in three.pairs(0)}
    assert roles == {
        frozenset(pair) for pair in [("a", "b"), ("a", "reference"), ("b", "reference"), ("intact", "degraded")]
    }
    assert len(three) == 20 == len(three.pairs(0))


@pytest.mark.parametrize(("task", "needs_inputs"), TASKS.items())
def test_a_question_about_the_middle_needs_inputs(folders, task, needs_inputs):
    assert opened(folders, task=task, inputs=folders.inputs).has_middle
    if needs_inputs:
        refused(folders, f"task {task} asks about the image in the middle", task=task)
    else:
        assert not opened(folders, task=task).has_middle


def test_an_unknown_task_is_refused(folders):
    refused(folders, "unknown task 'upscaling'", task="upscaling")


@pytest.mark.parametrize("pairs", [1, 2, 17, 18])
def test_as_many_pairs_as_there_are_may_be_asked(folders, pairs):
    assert len(opened(folders, pairs=pairs)) == pairs + 2


@pytest.mark.parametrize("pairs", [0, 19])
def test_no_pair_and_more_than_there_are_are_refused(folders, pairs):
    refused(folders, f"pairs is {pairs}; there are 18 different ones, choose 1 to 18", pairs=pairs)


def test_fifty_pairs_and_five_checks_are_asked_of_many_images(folders):
    for folder in (folders.ours, folders.theirs, folders.truth):
        for number in range(14):
            picture(99, number).save(folder / f"{number}.png")
    many = opened(folders, checks=None)
    assert (many.facts.pairs, many.facts.pairs_each, many.facts.checks) == (60, 50, 5)


@pytest.mark.parametrize("lacking", ["theirs", "truth", "inputs"])
def test_a_missing_image_is_named(folders, lacking):
    (getattr(folders, lacking) / "c.png").unlink()
    refused(folders, f"{lacking} lacks c, of which", inputs=folders.inputs)
    (getattr(folders, lacking) / "b.png").unlink()
    refused(folders, f"{lacking} lacks b and 1 more, of which", inputs=folders.inputs)


def test_a_reference_may_have_more_images_but_a_method_may_not(folders):
    picture(7).save(folders.truth / "more.png")
    assert opened(folders).facts.images == 6
    picture(7).save(folders.theirs / "more.png")
    refused(folders, "ours lacks more, of which")


def test_folders_without_a_common_name_are_refused(folders):
    for path in folders.theirs.iterdir():
        path.rename(path.with_name(f"{path.stem}-sample.png"))
    refused(folders, "have no image of the same name (one has a, the other a-sample)")


def test_suffixes_and_subfolders_don_t_matter(folders):
    for folder, suffix in ((folders.ours, ".png"), (folders.theirs, ".bmp"), (folders.truth, ".tif")):
        (folder / "day").mkdir()
        with Image.open(folder / "a.png") as image:
            image.save(folder / "day" / f"a{suffix}")
    assert opened(folders).facts.images == 7


def test_two_images_of_one_name_are_refused(folders):
    shutil.copy(folders.theirs / "a.png", folders.theirs / "a.bmp")
    refused(folders, "have one name; a study needs one image of a name")


def test_missing_and_empty_folders_are_refused(folders):
    with pytest.raises(InputError, match=r"nothing is no folder; give one with images"):
        open_study(folders.ours, folders.ours.parent / "nothing")
    (folders.ours.parent / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no images"):
        open_study(folders.ours, folders.ours.parent / "empty")
    with pytest.raises(InputError, match=r"a folder is given twice"):
        open_study(folders.ours, folders.theirs, folders.ours.parent / "x" / ".." / "theirs")


@pytest.mark.parametrize("which", ["theirs", "truth"])
@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_images_of_another_size_are_refused(folders, which, size):
    picture(1, size=size).save(getattr(folders, which) / "d.png")
    refused(folders, f"have {SIZE}x{SIZE} and {size}x{size} pixels; give images of equal sizes")


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(6, 6, True), (24, 24, True), (25, 24, True), (26, 24, False), (7, 6, True), (8, 6, False)],
)
def test_inputs_may_be_smaller_but_not_of_another_shape(folders, width, height, fits):
    picture(1).resize((width, height)).save(folders.inputs / "d.png")
    if fits:
        assert opened(folders, inputs=folders.inputs).has_middle
    else:
        refused(folders, "give images of equal ratios", inputs=folders.inputs)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_an_image_that_can_t_be_read_is_named(folders, content):
    path = folders.truth / "e.png"
    path.write_bytes(path.read_bytes()[:900] if content == "half" else content)
    with pytest.raises(BadFileError, match=r"e\.png"):
        opened(folders)


def plain(folder, names):
    for name in names:
        Image.new("RGB", (SIZE, SIZE), "grey").save(folder / f"{name}.png")


def test_checks_are_made_of_images_that_show_something(folders):
    plain(folders.truth, NAMES[:4])
    study = opened(folders, checks=2)
    assert {pair.name for pair in study.pairs(0) if "intact" in (pair.left, pair.right)} == set(NAMES[4:])
    refused(folders, "there are 2; choose 2 checks or fewer", checks=3)
    assert opened(folders, checks=0).facts.checks == 0


def test_without_a_reference_checks_are_made_of_the_first_method(folders):
    plain(folders.theirs, NAMES)
    study = open_study(folders.ours, folders.theirs, checks=1)
    (check,) = (pair for pair in study.pairs(0) if "intact" in (pair.left, pair.right))
    assert study.picture(check.name, "intact").tobytes() == study.picture(check.name, "a").tobytes()


def test_a_degraded_image_is_of_eight_squares_a_side():
    image = picture(0)
    squares = np.asarray(degraded(image))
    assert (squares.reshape(8, 3, 8, 3, 3) == squares[::3, ::3].reshape(8, 1, 8, 1, 3)).all()
    assert squares[:3, :3].mean() == pytest.approx(np.asarray(image)[:3, :3].mean(), abs=0.5)
    assert degraded(image.resize((48, 12))).size == (48, 12)


def test_what_is_evident():
    def checkers(contrast):
        pixels = np.full((16, 16, 3), 100, dtype=np.uint8)
        pixels[::2] += np.uint8(contrast)
        return Image.fromarray(pixels)

    assert [is_evident(checkers(2 * int(EVIDENT) + change)) for change in (-2, 0, 2)] == [False, True, True]
    assert not is_evident(picture(0, size=8))  # its mosaic is the image itself


def test_images_are_sent_without_what_their_files_say(folders):
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "the secret method")
    with Image.open(folders.ours / "a.png") as image:
        pixels = image.tobytes()
        image.save(folders.ours / "a.png", pnginfo=about, icc_profile=b"secret profile")
    content = opened(folders).png("a", "a")
    assert b"secret" in (folders.ours / "a.png").read_bytes()
    with Image.open(io.BytesIO(content)) as sent:
        assert (sent.format, sent.tobytes(), sent.info) == ("PNG", pixels, {})


def test_an_image_that_changed_is_not_shown(folders):
    study = opened(folders)
    shutil.copy(folders.ours / "b.png", folders.ours / "a.png")
    with pytest.raises(BadFileError, match=r"a\.png has changed since the study was opened"):
        study.png("a", "a")


def test_the_fingerprint_is_of_images_and_options(folders):
    first = opened(folders)
    moved = folders.ours.parent / "elsewhere"
    folders.ours.rename(moved)
    folders.ours = moved
    assert opened(folders).fingerprint == first.fingerprint
    others = [{"seed": 1}, {"look": 2.0}, {"pairs": 17}, {"checks": 1}, {"inputs": folders.inputs}]
    others.append({"texts": {**ENGLISH, "question.general": "Which one?"}})
    folders.ours, folders.theirs = folders.theirs, folders.ours
    prints = [opened(folders).fingerprint]
    folders.ours, folders.theirs = folders.theirs, folders.ours
    prints += [opened(folders, **options).fingerprint for options in others]
    picture(5).save(folders.ours / "a.png")
    prints.append(opened(folders).fingerprint)
    assert len({first.fingerprint, *prints}) == 1 + len(prints)


def test_labels_tell_folders_apart(folders):
    assert opened(folders).facts.labels == {"a": "ours", "b": "theirs", "reference": "truth"}
    for run in ("one", "two"):
        shutil.copytree(folders.ours, folders.ours.parent / run / "samples")
    same = open_study(*(folders.ours.parent / run / "samples" for run in ("one", "two")))
    assert same.facts.labels == {"a": "one/samples", "b": "two/samples"}


def test_texts_of_another_language(tmp_path):
    path = tmp_path / "german.json"
    path.write_text('{"language": "de", "welcome.start": "Anfangen"}')
    assert read_texts(path) == {**ENGLISH, "language": "de", "welcome.start": "Anfangen"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"welcome.strat": "Anfangen"}', "'welcome.strat', which is no text of the page"),
        ('{"language": 1}', "is no JSON object of texts"),
        ('["de"]', "is no JSON object of texts"),
        ("{", "cannot be read as JSON"),
        (None, "cannot be read as JSON (No such file or directory)"),
    ],
)
def test_texts_that_are_none(tmp_path, content, message):
    path = tmp_path / "german.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as told:
        read_texts(path)
    assert message in str(told.value)


def test_names_of_any_bytes(folders, tmp_path):
    for folder in (folders.ours, folders.theirs, folders.truth):
        (folder / "a.png").rename(folder / os.fsdecode(b"\xff\xfe.png"))
    study = opened(folders)
    with open_store(tmp_path / "study.db", study) as store:
        number = store.participant(store.join())
        names = [pair.name for pair in study.pairs(number)]
        assert r"\xff\xfe" in names
        store.show(number, 0)
