"""The table of quality against time: equal seeds and conditions, distances of evaluate, cells that are kept."""

import json

import numpy as np
import pytest
from PIL import Image
from small_features import SmallFeatures
from tiny import CLASSES, tiny_super_resolution

from latentdiff import ConfigError, DiffusionPipeline, InputError
from latentdiff.bench.inputs import Conditions
from latentdiff.bench.quality import Cell, CellName, Quality, QualityTable
from latentdiff.evaluation.samples import evaluate_samples

pytestmark = pytest.mark.filterwarnings("ignore::latentdiff.errors.LatentDiffWarning")


@pytest.fixture
def table(text_pipe, reference, tmp_path):
    """Makes a table of a model with text, in the folder `cells`."""

    def make(pipe=text_pipe, **changes):
        options = {
            "reference": reference,
            "solvers": ["ddim", "euler"],
            "steps": [2, 3],
            "count": 4,
            "features": SmallFeatures(),
            "batch_size": 3,
            "samples_dir": tmp_path / "cells",
            "cache": tmp_path / "cache",
        }
        return QualityTable(pipe, **{**options, **changes})

    return make


@pytest.mark.thorough
def test_cells_have_the_distances_of_evaluate_and_the_images_of_their_seeds(table, text_pipe, reference, tmp_path):
    found = table(seed=7).compute()
    assert [(cell.solver, cell.steps) for cell in found.cells] == [("ddim", 2), ("ddim", 3), ("euler", 2), ("euler", 3)]
    assert found.metric == "frechet[small, none, 4, train]" and found.target is None
    for cell in found.cells:
        folder = tmp_path / "cells" / f"{cell.solver}-{cell.steps}"
        report = evaluate_samples(folder, reference, features=SmallFeatures(), cache=tmp_path / "other")
        assert cell.distance == report.value("frechet") > 0 and cell.samples_per_second > 0
    text_pipe.set_scheduler("euler")
    captions = ["a red apple", "a blue star", "the dog", "a small cat"]  # of images 0, 1, 2, 3 of the 5
    alone = text_pipe(captions[3], num_inference_steps=3, seed=10).images[0]
    pixels = np.asarray(Image.open(tmp_path / "cells" / "euler-3" / "000003.png")).astype(int)
    assert np.abs(pixels - np.asarray(alone)).max() <= 1


def test_conditions_are_spread_over_the_images_that_count(table):
    captions = ["a red apple", "a blue star", "the dog", "a small cat", "a green pear"]
    assert table(count=3).conditions.values == [captions[0], captions[1], captions[3]]
    assert table(count=3, reference_count=3).conditions.values == captions[:3]
    assert table(count=8, reference_count=4).conditions.values == [text for text in captions[:4] for _ in range(2)]


def test_a_model_of_classes_takes_those_of_the_reference(class_folder, make_reference, table):
    pipe = DiffusionPipeline.from_pretrained(class_folder)
    labelled = make_reference("labelled", 3, rows=[{"label": name} for name in (CLASSES[2], CLASSES[0], CLASSES[4])])
    made = table(pipe, reference=labelled, count=3, samples_dir="a")
    assert made.conditions == Conditions("class_labels", [CLASSES[2], CLASSES[0], CLASSES[4]])
    assert made.conditions.arguments(range(1, 3)) == {"class_labels": [CLASSES[0], CLASSES[4]]}
    unknown = make_reference("unknown", 3, rows=[{"label": name} for name in ("apple", "horse", "cat")])
    with pytest.raises(InputError, match="the column label of the reference unknown: unknown class 'horse'"):
        table(pipe, reference=unknown)


@pytest.mark.thorough
def test_finished_cells_are_not_computed_again(table, text_pipe, tmp_path):
    first = table().compute()
    files = {path: path.read_bytes() for path in sorted((tmp_path / "cells").rglob("*.*"))}
    calls = []
    text_pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    again = table()
    assert again.images_left() == 0
    assert again.compute() == first and not calls
    assert {path: path.read_bytes() for path in sorted((tmp_path / "cells").rglob("*.*"))} == files
    more = table(solvers=["ddim"], steps=[3, 4], target="euler:2")
    assert more.images_left() == 4
    found = more.compute()
    assert len(calls) == 2 + 4 + 4  # one that warms up, of 2 steps, and the two batches of ddim 4
    assert found.cells[0] == first.cells[1] and found.target == first.cells[2]


@pytest.mark.thorough
def test_an_interrupted_cell_goes_on_with_the_batch_that_is_missing(table, tmp_path):
    first = table().compute()
    folder = tmp_path / "cells"
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    (folder / "ddim-2" / "000003.png").unlink()
    (folder / "ddim-2.distance.json").unlink()
    timed = json.loads((folder / "euler-3.seconds.json").read_text())
    assert timed.keys() == {"0", "3"}
    (folder / "euler-3.seconds.json").write_text(json.dumps({"0": timed["0"]}))
    table_again = table()
    assert table_again.images_left() == 1 + 1
    made = []
    found = table_again.compute(done=made.append)
    assert made == [1, 1] and {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert [cell.distance for cell in found.cells] == [cell.distance for cell in first.cells]


def test_speeds_are_of_whole_batches(table, tmp_path):
    made = table(solvers=["ddim"], steps=[2], count=7)
    made.compute()
    path = tmp_path / "cells" / "ddim-2.seconds.json"
    path.write_text(json.dumps({"0": 1.0, "3": 2.0, "6": 50.0}))
    assert made.compute().cells[0].samples_per_second == (3 / 1.0 + 3 / 2.0) / 2


@pytest.mark.thorough
def test_other_features_measure_the_images_that_are_there(table, text_pipe):
    first = table().compute()
    text_pipe.unet.register_forward_hook(lambda *_: pytest.fail("the model is called"))
    assert table(features=SmallFeatures(is_fid=True, seed=1)).compute().metric == "fid[small, none, 4, train]"
    assert table().compute() == first
    with pytest.raises(InputError, match="samples of another run: other captions or classes; choose another"):
        table(reference_count=3)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 2}, "batch size 3, and here 2"),
        ({"seed": 1}, "seed 0, and here 1"),
        ({"count": 3}, "count 4, and here 3"),
        ({"options": {"guidance_scale": 2.0}}, r"options \{\}, and here \{'guidance_scale': 2.0\}"),
    ],
)
def test_a_folder_of_other_options_is_refused(table, changes, message):
    table(steps=[2]).compute()
    with pytest.raises(InputError, match=f"cells has samples of another run: {message}; choose another samples_dir"):
        table(**changes)


def test_a_folder_of_another_model_or_of_other_files_is_refused(table, text_pipe, tmp_path):
    table(steps=[2]).compute()
    text_pipe.unet.conv_out.bias.data += 1
    with pytest.raises(InputError, match="has samples of another run: other weights; choose another"):
        table()
    for taken in ("train", "train/0.png"):
        with pytest.raises(InputError, match=f"{taken} is no folder, or has other files; choose another samples_dir"):
            table(samples_dir=tmp_path / taken)
    (tmp_path / "empty").mkdir()
    assert table(samples_dir=tmp_path / "empty").images_left() == 16
    (tmp_path / "cells" / "bench.json").write_text("{")
    with pytest.raises(InputError, match=r"bench.json is damaged; choose another samples_dir"):
        table()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"solvers": ["dimm"]}, ConfigError, "unknown scheduler 'dimm'; did you mean 'ddim'"),
        ({"steps": [1001]}, InputError, "steps is 1001; it must be an integer from 1 to 1000"),
        ({"target": "ddim:1001"}, InputError, "steps is 1001; it must be"),
        ({"target": "ddim"}, InputError, "target is 'ddim'; it must be SOLVER:STEPS"),
        ({"target": "ddim:0"}, InputError, "target is 'ddim:0'; it must be SOLVER:STEPS"),
        ({"target": "dimm:5"}, ConfigError, "unknown scheduler 'dimm'"),
        ({"solvers": []}, InputError, "no solvers or no steps are given"),
        ({"count": 1}, InputError, "count is 1; a distance needs at least 2 images"),
        ({"reference_count": 6}, InputError, "6 images of .*train are asked for; it has 5"),
        ({"reference_count": 1}, InputError, "the reference train has 1 images, and it needs 2"),
        ({"reference": "nowhere"}, InputError, "nowhere"),
        ({"features": "smal"}, ConfigError, "unknown feature extractor 'smal'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_made(table, tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message):
        table(**changes)
    assert not (tmp_path / "cells").exists() and not (tmp_path / "cache").exists()


def test_references_that_do_not_fit_the_model_are_refused(table, make_reference, tmp_path):
    large = make_reference("large", size=18)
    with pytest.raises(
        InputError, match=r"the images of the model's samples are 16x16, those of the reference .*large 18x18"
    ):
        table(reference=large)
    assert table(reference=large, resolution=16).images_left() == 4 * 4
    with pytest.raises(InputError, match="the reference bare has no captions"):
        table(reference=make_reference("bare", rows=[]))
    strange = make_reference("strange", rows=[{"text": text} for text in ("a cat", "a dog", "qqq", "star", "pear")])
    with pytest.raises(InputError, match="the column text of the reference strange: prompt 'qqq' has no word"):
        table(reference=strange, count=5)
    moments = tmp_path / "moments.npz"
    np.savez(moments, mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(InputError, match="has no images, and moments of small come from no file"):
        table(reference=moments)
    with pytest.raises(InputError, match="the reference moments has no captions"):
        table(reference=moments, features=SmallFeatures(is_fid=True))


@pytest.mark.thorough
def test_an_unconditional_model_needs_moments_alone(table, plain_pipe, tmp_path):
    np.savez(tmp_path / "moments.npz", mu=np.zeros(6), sigma=np.eye(6))
    made = table(plain_pipe, reference=tmp_path / "moments.npz", features=SmallFeatures(is_fid=True))
    assert made.compute().metric == "fid[small, none, 4, moments]"
    first = table(plain_pipe).compute()
    other = table(plain_pipe, reference_count=3).compute()
    assert [cell.samples_per_second for cell in other.cells] == [cell.samples_per_second for cell in first.cells]
    assert all(a.distance != b.distance for a, b in zip(first.cells, other.cells, strict=True))


def test_a_task_that_makes_images_of_images_is_refused(table, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(tiny_super_resolution(tmp_path))
    with pytest.raises(InputError, match="the quality of super-resolution is measured against its inputs"):
        table(pipe)


def cell(solver, steps, distance):
    return Cell(solver, steps, steps, 1.0, distance)


def test_the_fewest_steps_reach_the_target_at_its_very_distance():
    cells = [cell("a", 20, 2.9), cell("a", 10, 3.0), cell("a", 5, 3.1), cell("b", 5, 3.0001), cell("c", 2, 2.0)]
    fewest = Quality("frechet[]", cells, cell("ddim", 250, 3.0), []).fewest()
    assert fewest == {"a": cells[1], "b": None, "c": cells[4]}
    with pytest.raises(InputError, match="the table has no target"):
        Quality("frechet[]", cells, None, []).fewest()


def test_a_target_is_a_solver_and_its_steps():
    assert CellName.parse("ddim:250") == CellName("ddim", 250) and str(CellName("ddim", 250)) == "ddim:250"


@pytest.mark.thorough
@pytest.mark.parametrize(
    "content",
    ['{"a": 1}', '{"0": "x"}', '{"0": null, "3": 1}', '{"0": 0, "3": 1}', '{"0": NaN, "3": 1}', "[]", '{"0":'],
)
def test_a_damaged_note_of_seconds_has_its_batches_made_again(table, tmp_path, content):
    options = {"solvers": ["ddim"], "steps": [2]}
    before = table(**options).compute().cells[0].distance
    (tmp_path / "cells" / "ddim-2.seconds.json").write_text(content)
    again = table(**options)
    assert again.images_left() in (3, 4)
    (cell,) = again.compute().cells
    assert cell.distance == before and cell.samples_per_second > 0
    assert table(**options).images_left() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("changes", [{"metric": None}, {"distance": "x"}, {"notes": 3}])
def test_a_damaged_note_of_a_distance_is_made_again(table, tmp_path, changes):
    options = {"solvers": ["ddim"], "steps": [2]}
    before = table(**options).compute()
    path = tmp_path / "cells" / "ddim-2.distance.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, **changes}))
    assert table(**options).compute() == before
    assert json.loads(path.read_text()) == whole
