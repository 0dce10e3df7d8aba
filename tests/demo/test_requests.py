"""What the server does without a browser: its line of requests, settings, drawings, and what is wrong with them."""

import base64
import io
import json
import threading

import numpy as np
import pytest
import tiny
from PIL import Image

from latentdiff.cli.options import ModelOptions
from latentdiff.demo.drawing import as_png, read_drawing, read_upload
from latentdiff.demo.making import make
from latentdiff.demo.models import load_model, names_of_models, without_model
from latentdiff.demo.settings import Settings, read_query, whole
from latentdiff.demo.shelf import Shelf
from latentdiff.demo.worker import MOST_WAITING, Done, Failed, Progress, Request, Worker
from latentdiff.errors import InputError
from latentdiff.tasks import TASKS


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    def loaded(maker):
        return load_model(ModelOptions(model=str(maker(folder))))

    return loaded


def outcome(request):
    """What a request ends with."""
    while isinstance(event := request.latest(10), Progress):
        pass
    return event


def test_requests_are_done_one_after_another():
    worker, go, order = Worker(), threading.Event(), []

    def work(number):
        def call(request):
            go.wait(10)
            order.append(number)
            return number

        return call

    requests = [worker.submit(work(number)) for number in range(3)]
    while worker.ahead(requests[2]) == 3:
        pass  # the first is taken up
    assert [worker.ahead(request) for request in requests] == [0, 1, 2]
    worker.cancel(requests[1])
    assert outcome(requests[1]) == Failed(None)
    go.set()
    assert [outcome(requests[0]), outcome(requests[2])] == [Done(0), Done(2)]
    assert order == [0, 2]


def test_a_cancelled_request_ends_with_its_step():
    worker, steps, stepped = Worker(), [], threading.Event()

    def work(request):
        for step in range(1000):
            steps.append(step)
            stepped.set()
            request.tell(Progress(step, 1000))
            if step == 3:
                worker.cancel(request)

    request = worker.submit(work)
    assert outcome(request) == Failed(None)
    assert steps == [0, 1, 2, 3, 4]
    assert outcome(worker.submit(lambda request: "next")) == Done("next")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("prompt is blank"), "prompt is blank"),
        (MemoryError(), "There is no memory for this"),
        (RuntimeError("CUDA out of memory"), "There is no memory for this"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "There is no memory for this"),
        (RuntimeError("shapes differ"), "Something went wrong on the server"),
    ],
)
def test_the_worker_outlives_errors(error, reason):
    worker = Worker()

    def work(request):
        raise error

    assert outcome(worker.submit(work)).reason.startswith(reason)
    assert outcome(worker.submit(lambda request: 1)) == Done(1)


def test_a_line_that_is_full():
    worker, go, begun = Worker(), threading.Event(), threading.Event()
    worker.submit(lambda request: (begun.set(), go.wait(10)))
    begun.wait(10)
    for _ in range(MOST_WAITING):
        worker.submit(lambda request: None)
    with pytest.raises(InputError, match="32 requests are waiting already"):
        worker.submit(lambda request: None)
    go.set()


def test_of_several_steps_the_last_is_told_with_the_last_preview():
    request = Request(lambda request: None)
    for step, preview in ((1, "a"), (2, "b"), (3, None)):
        request.tell(Progress(step, 9, preview))
    assert request.latest(0) == Progress(3, 9, "b")
    assert request.latest(0) is None
    request.tell(Progress(4, 9))
    request.events.put(Done(1))
    assert request.latest(0) == Done(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be an integer from 1 to 250"),
        ({"steps": 251}, "steps is 251"),
        ({"cache_interval": 11}, "cache_interval is 11; it must be an integer from 1 to 10"),
        ({"scheduler": "euller"}, "unknown solver 'euller'"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; it must be a number from 0 to 20"),
        ({"guidance_scale": 20.1}, "guidance_scale is 20.1"),
        ({"seed": -1}, "seed"),
        ({"prompt": "a" * 4001}, "prompt has more than 4000 characters"),
    ],
)
def test_settings_that_are_none(values, message):
    with pytest.raises(InputError, match=message):
        Settings(model="builtin:emoji", **values)


def test_a_link_holds_the_settings():
    settings = Settings(model="a b", prompt="ü & ?", seed=2**40, steps=1, guidance_scale=0.5)
    query = dict(pair.split("=") for pair in settings.query("there").split("&"))
    assert query["drawing"] == "there"
    from urllib.parse import parse_qsl

    known, wrong = read_query(dict(parse_qsl(settings.query())))
    assert (Settings(**known), wrong) == (settings, [])


@pytest.mark.parametrize(("given", "number"), [("7", 7), (" 8 ", 8), (9.0, 9), (str(2**60), 2**60)])
def test_whole_numbers(given, number):
    assert whole(given, "seed") == number


@pytest.mark.parametrize("given", ["", "x", "1.5", "nan", "inf", None])
def test_numbers_that_are_not_whole(given):
    with pytest.raises(InputError, match=r"seed is .*; it must be an integer"):
        whole(given, "seed")


def test_a_shelf_forgets_the_oldest():
    shelf = Shelf(10)
    first, second = shelf.put("a", 4), shelf.put("b", 4)
    assert shelf.get(first) == "a"
    third = shelf.put("c", 4)
    assert [shelf.get(name) for name in (first, second, third)] == ["a", None, "c"]
    large = shelf.put("d", 100)
    assert [shelf.get(name) for name in (first, third, large)] == [None, None, "d"]


def raster(values):
    values = np.array(values, np.uint8)
    height, width = values.shape
    return {"width": width, "height": height, "raster": base64.b64encode(values.tobytes()).decode()}


@pytest.mark.parametrize(
    ("maker", "drawing"),
    [
        (tiny.tiny_semantic_to_image, None),
        (tiny.tiny_semantic_to_image, {"kind": "mask"}),
        (tiny.tiny_semantic_to_image, {"kind": "labels", **raster([[0, 5]])}),
        (tiny.tiny_semantic_to_image, {"kind": "labels", **raster([[0, 4]]), "width": 3}),
        (tiny.tiny_semantic_to_image, {"kind": "labels", "width": 10**6, "height": 10**6, "raster": ""}),
        (tiny.tiny_semantic_to_image, {"kind": "labels", "width": 1, "height": 1, "raster": "!"}),
        (tiny.tiny_layout_to_image, {"kind": "boxes", "width": 4, "height": 4, "objects": []}),
        *(
            (tiny.tiny_layout_to_image, {"kind": "boxes", "width": 4, "height": 4, "objects": [item]})
            for item in (
                7,
                {"class": 5, "box": [0, 0, 1, 1]},
                {"class": True, "box": [0, 0, 1, 1]},
                {"class": 0, "box": [0, 0, 0, 1]},
                {"class": 0, "box": [3, 0, 2, 1]},
                {"class": 0, "box": [0, 0, 1]},
                {"class": 0, "box": [0, 0, 1.5, 1]},
            )
        ),
        (tiny.tiny_inpaint, {"kind": "mask", "photo": None, **raster([[1]])}),
        (tiny.tiny_inpaint, {"kind": "mask", "photo": "../../secret", **raster([[1]])}),
        (tiny.tiny_super_resolution, {"kind": "image", "photo": 3}),
    ],
)
def test_drawings_that_no_canvas_sends(load, maker, drawing):
    with pytest.raises(InputError, match=r" first|open it again|^Open a photo, and paint"):
        read_drawing(drawing, load(maker), Shelf(100))


def test_a_label_map_with_the_last_class(load):
    drawn = read_drawing({"kind": "labels", **raster([[0, 4]])}, load(tiny.tiny_semantic_to_image), Shelf(100))
    with Image.open(io.BytesIO(drawn.files["label-map.png"])) as picture:
        assert np.asarray(picture).tolist() == [[0, 4]]
        assert [picture.convert("RGB").getpixel((x, 0)) for x in (0, 1)] == [tiny.PALETTE[0], tiny.PALETTE[4]]


def test_a_mask_has_to_fit_its_photo(load):
    photos, model = Shelf(10**6), load(tiny.tiny_inpaint)
    photo = photos.put(as_png(Image.new("RGB", (3, 2))), 100)
    for values in ([[0, 0, 0], [0, 0, 0]], [[1, 1], [1, 1], [1, 1]]):
        with pytest.raises(InputError, match="paint over what is to be made anew"):
            read_drawing({"kind": "mask", "photo": photo, **raster(values)}, model, photos)
    drawn = read_drawing({"kind": "mask", "photo": photo, **raster([[0, 0, 0], [0, 1, 0]])}, model, photos)
    assert np.asarray(Image.open(io.BytesIO(drawn.files["mask.png"]))).tolist() == [[0, 0, 0], [0, 255, 0]]


def test_an_upload_is_turned_and_made_smaller(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (640, 320), (0, 0, 255)).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(io.BytesIO(read_upload(tmp_path / "turned.jpg", 64))) as picture:
        assert (picture.size, picture.getpixel((5, 5))[2] > 250) == ((32, 64), True)
    with Image.open(io.BytesIO(read_upload(tmp_path / "turned.jpg", 10**9))) as picture:
        assert picture.size == (320, 640)


def test_the_models_and_tasks_of_the_page(load):
    model = load(tiny.tiny_class_to_image)
    assert (model.labels, model.size, model.guidance_scale) == (tuple(tiny.CLASSES), (16, 16), 3.0)
    assert "class-to-image" not in without_model([model])
    assert set(without_model([])) == {*TASKS} - {"image-to-image", "hybrid"}
    assert names_of_models(["b", "a", "b"]) == ["b", "a"]
    assert names_of_models([])[0] == "builtin:emoji"


def test_making_leaves_the_models_solver_and_no_files(load, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = load(tiny.tiny_unconditional)
    before = model.pipeline.scheduler
    settings = Settings(model=model.name, seed=1, steps=2, scheduler="dpmpp_2m")
    made = make(model, settings, read_drawing(None, model, Shelf(1)), Request(lambda request: None))
    assert model.pipeline.scheduler is before
    assert made.parameters["scheduler"] == "dpmpp_2m"
    assert list(tmp_path.iterdir()) == []


def test_errors_name_files_as_the_page_does(load):
    model = load(tiny.tiny_layout_to_image)
    objects = [{"class": 0, "box": [0, 0, 1, 1]}] * 5  # one more than it takes
    drawing = {"kind": "boxes", "width": 4, "height": 4, "objects": objects}
    drawn = read_drawing(drawing, model, Shelf(1))
    assert len(json.loads(drawn.files["layout.json"])["objects"]) == 5
    with pytest.raises(InputError) as error:
        make(model, Settings(model=model.name, guidance_scale=1.0), drawn, Request(lambda request: None))
    assert "5 objects" in str(error.value)
    assert "/tmp" not in str(error.value)
