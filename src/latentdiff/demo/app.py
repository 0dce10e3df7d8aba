"""The page: its controls in gradio, and what happens when they are used."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from latentdiff.demo import shown
from latentdiff.demo.drawing import MOST_BYTES, read_drawing, read_upload
from latentdiff.demo.making import Made, make
from latentdiff.demo.models import Model, without_model
from latentdiff.demo.settings import (
    DRAWING,
    LARGEST_SCALE,
    LONGEST_INTERVAL,
    MOST_STEPS,
    Settings,
    drawn_seed,
    read_query,
    whole,
)
from latentdiff.demo.shelf import Shelf
from latentdiff.demo.texts import ENGLISH, say
from latentdiff.demo.worker import Done, Failed, Request, Worker
from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS
from latentdiff.types import JSON

PAGE = files("latentdiff.demo") / "page"
PHOTO_ROOM = 256 * 2**20  # bytes of photos that are kept for all pages
DRAWING_ROOM = 64 * 2**20  # of drawings that links lead back to
PATIENCE = 0.5  # seconds after which a page without news is asked whether it is still there
EMPTY = '<div class="latentdiff-part"></div>'  # what the scripts fill; gradio would take back what is in a template


class Demo:
    """The page and what it asks of the server.

    Args:
        models: The models to choose from, at least one.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = {model.name: model for model in models}
        self.worker: Worker[Made] = Worker()
        self.photos: Shelf[bytes] = Shelf(PHOTO_ROOM)
        self.drawings: Shelf[JSON] = Shelf(DRAWING_ROOM)
        self._requests: dict[str, Request[Made]] = {}  # of each page, by its session
        self._lock = threading.Lock()
        self.page = self._build()

    def _build(self) -> gr.Blocks:
        first = next(iter(self.models.values()))
        names = [(f"{model.name} ({model.task.summary})", model.name) for model in self.models.values()]

        def take_photo(asked: JSON) -> JSON:  # gradio marks it, which it can't a method
            return self.take_photo(asked)

        missing = without_model(list(self.models.values()))
        with gr.Blocks(title=say("title"), analytics_enabled=False) as page:
            gr.Markdown(f"# {say('title')}\n{say('intro')}")
            with gr.Row():
                with gr.Column(min_width=300):
                    model = gr.Dropdown(names, value=first.name, label=say("model"), elem_id="model")
                    if missing:
                        gr.Markdown(say("missing", tasks=", ".join(missing)), elem_id="missing")
                    prompt = gr.Textbox(
                        label=say("prompt"),
                        placeholder=say("prompt.hint"),
                        elem_id="prompt",
                        max_lines=4,
                        visible=False,
                    )
                    label = gr.Dropdown([], label=say("label"), elem_id="label", visible=False)
                    canvas = gr.HTML(
                        html_template=EMPTY,
                        css_template=_asset("canvas.css"),
                        js_on_load=_asset("parts.js") + _asset("canvas.js"),
                        apply_default_css=False,
                        server_functions=[take_photo],
                        elem_id="canvas",
                        texts=dict(ENGLISH),
                        most_bytes=MOST_BYTES,
                    )
                    with gr.Row():
                        generate = gr.Button(say("generate"), variant="primary", elem_id="generate", interactive=False)
                        cancel = gr.Button(say("cancel"), elem_id="cancel")
                    with gr.Row():
                        seed = gr.Textbox(value="0", label=say("seed"), elem_id="seed", min_width=100, max_lines=1)
                        new_seed = gr.Checkbox(value=True, label=say("new_seed"), elem_id="new-seed", min_width=150)
                    with gr.Accordion(say("settings"), open=False, elem_id="settings"):
                        negative = gr.Textbox(
                            label=say("negative_prompt"), placeholder=say("negative_prompt.hint"), elem_id="negative"
                        )
                        steps = gr.Slider(
                            1, MOST_STEPS, value=Settings(model="").steps, step=1, label=say("steps"), elem_id="steps"
                        )
                        solvers = [(say("scheduler.own"), ""), *((name, name) for name in SCHEDULERS.names())]
                        scheduler = gr.Dropdown(solvers, value="", label=say("scheduler"), elem_id="scheduler")
                        guidance = gr.Slider(
                            0, LARGEST_SCALE, value=1, step=0.1, label=say("guidance_scale"), elem_id="guidance"
                        )
                        cache = gr.Slider(
                            1, LONGEST_INTERVAL, value=1, step=1, label=say("cache_interval"), elem_id="cache"
                        )
                with gr.Column(min_width=300):
                    viewer = gr.HTML(
                        html_template=EMPTY,
                        css_template=_asset("viewer.css"),
                        js_on_load=_asset("parts.js") + _asset("viewer.js"),
                        apply_default_css=False,
                        elem_id="viewer",
                        texts=dict(ENGLISH),
                    )
            # The order of `Settings` and READERS, then what isn't part of them.
            controls = [model, prompt, negative, label, seed, steps, scheduler, guidance, cache, new_seed, canvas]
            quiet = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
            restored = [*controls, viewer, generate]
            page.load(self.open, None, restored, **quiet)
            viewer.restore(self.restore, None, restored, **quiet)
            model.input(self.choose, model, [prompt, negative, label, guidance, canvas], **quiet)
            for event in (generate.click, prompt.submit):
                event(self.generate, controls, [viewer, seed], **quiet)
            cancel.click(self.cancel, None, None, queue=False, show_progress="hidden", api_visibility="private")
            page.unload(self.cancel)
        return page

    def choose(self, name: str) -> list[object]:
        """What the controls are when another model is chosen: prompt, negative prompt, class, guidance, canvas."""
        return _controls_of(self._model(name), {})

    def open(self, request: gr.Request) -> list[object]:
        """What the controls are when the page is opened, by what its address says."""
        return self._restored(dict(request.query_params))

    def restore(self, event: gr.EventData) -> list[object]:
        """What the controls are when an entry of the page's history is chosen."""
        query = event.query
        return self._restored({str(name): str(value) for name, value in query.items()})

    def _restored(self, query: Mapping[str, str]) -> list[object]:
        known, wrong = read_query(query)
        notices = [say("error.link", setting=name, value=value) for name, value in wrong]
        name = str(known.get("model", next(iter(self.models))))
        if name not in self.models:
            notices.append(say("error.model", model=name))
            name = next(iter(self.models))
        model = self.models[name]
        if "label" in known and known["label"] not in model.labels:
            notices.append(say("error.link", setting="label", value=known.pop("label")))
        prompt, negative, label, guidance, canvas = _controls_of(model, known)
        if DRAWING in query:
            drawing = self._kept_drawing(model, query[DRAWING])
            if drawing is None:
                notices.append(say("gone"))
            canvas = {"setup": shown.canvas_setup(model), "drawing": drawing}
        seeded = "seed" in known
        return [
            model.name,
            prompt,
            negative,
            label,
            str(known["seed"]) if seeded else gr.skip(),
            known.get("steps", gr.skip()),
            known.get("scheduler", gr.skip()),
            guidance,
            known.get("cache_interval", gr.skip()),
            False if seeded else gr.skip(),
            canvas,
            {"state": "open", "text": " ".join(notices), "fault": bool(notices)},
            gr.Button(interactive=True),  # which it isn't before the page is what its address says
        ]

    def _kept_drawing(self, model: Model, name: str) -> JSON | None:
        """A drawing that a link leads back to, with its photo; None if it is kept no longer."""
        drawing = self.drawings.get(name)
        if drawing is None or drawing["kind"] != model.controls.canvas:
            return None
        photo = self.photos.get(str(drawing["photo"])) if drawing.get("photo") else None
        return None if photo is None and drawing.get("photo") else shown.drawing_again(drawing, photo)

    def take_photo(self, asked: JSON) -> JSON:
        """Keep a picture that was uploaded, smaller if need be; what the canvas is told of it, or the fault.

        Args:
            asked: The file's `path` on the server, and the longest `side` that the picture may have.
        """
        folder = Path(get_upload_folder()).resolve()
        try:
            path = Path(str(asked["path"])).resolve()
            if not path.is_relative_to(folder) or not path.is_file():
                raise InputError(say("error.upload.kind"))
            try:
                png = read_upload(path, whole(asked["side"], "side"))
            finally:
                path.unlink(missing_ok=True)
        except (InputError, KeyError, TypeError) as error:
            return {"error": str(error) if isinstance(error, InputError) else say("error.upload.kind")}
        except MemoryError:
            return {"error": say("error.memory")}
        return shown.photo_taken(self.photos.put(png, len(png)), png)

    def generate(
        self,
        name: str,
        prompt: str | None,
        negative: str | None,
        label: str | None,
        seed: str,
        steps: float,
        scheduler: str | None,
        guidance: float,
        cache: float,
        new_seed: bool,
        canvas: JSON | None,
        request: gr.Request,
    ) -> Iterator[tuple[object, object]]:
        """Make an image; yields what the viewer shows of it, and the seed."""
        try:
            model = self._model(name)
            settings = Settings(
                model=model.name,
                prompt=(prompt or "") if model.takes_prompt else "",
                negative_prompt=(negative or "").strip() if model.takes_prompt else "",
                label=(label or "") if model.labels else "",
                seed=drawn_seed() if new_seed else whole(seed, "seed"),
                steps=whole(steps, "steps"),
                scheduler=scheduler or "",
                guidance_scale=None if model.guidance_scale is None else float(guidance),
                cache_interval=whole(cache, "cache_interval"),
            )
            drawing = (canvas or {}).get("drawing")
            drawn = read_drawing(drawing, model, self.photos)
            asked = self.worker.submit(lambda asked: make(model, settings, drawn, asked))
        except InputError as error:
            yield shown.failure(str(error)), gr.skip()
            return
        self.cancel(request)  # a page has one request at a time
        with self._lock:
            self._requests[str(request.session_hash)] = asked
        try:
            yield {"state": "running", "text": say("starting")}, str(settings.seed)
            yield from self._course(asked, settings, drawing)
        finally:  # also where the browser was closed, in which case gradio closes this generator
            self.worker.cancel(asked)
            with self._lock:
                if self._requests.get(str(request.session_hash)) is asked:
                    del self._requests[str(request.session_hash)]

    def _course(
        self, asked: Request[Made], settings: Settings, drawing: JSON | None
    ) -> Iterator[tuple[object, object]]:
        preview = None
        while True:
            event = asked.latest(PATIENCE)
            if isinstance(event, Done):
                kept = None if drawing is None else self.drawings.put(drawing, len(json.dumps(drawing)))
                yield shown.result(event.result, settings.query(kept)), gr.skip()
                return
            if isinstance(event, Failed):
                failed = {"state": "cancelled", "text": say("cancelled")}
                yield failed if event.reason is None else shown.failure(event.reason), gr.skip()
                return
            if event is None:
                ahead = self.worker.ahead(asked)
                waits = {"state": "waiting", "text": say("waiting", ahead=ahead)}
                yield waits if ahead else gr.skip(), gr.skip()
                continue
            preview = event.preview or preview
            yield shown.progress(event, preview), gr.skip()

    def cancel(self, request: gr.Request) -> None:
        """Have the request of a page end with the step that it is in."""
        with self._lock:
            asked = self._requests.get(str(request.session_hash))
        if asked is not None:
            self.worker.cancel(asked)

    def _model(self, name: str) -> Model:
        if name not in self.models:
            raise InputError(say("error.model", model=str(name)[:100]))
        return self.models[name]


def _controls_of(model: Model, known: Mapping[str, object]) -> list[object]:
    """What the controls that depend on the model are, with the settings that are known."""
    guided = model.guidance_scale is not None
    texts = {name: {"value": known[name]} if name in known else {} for name in ("prompt", "negative_prompt")}
    return [
        gr.Textbox(visible=model.takes_prompt, **texts["prompt"]),
        gr.Textbox(visible=model.takes_prompt and guided, **texts["negative_prompt"]),
        gr.Dropdown(
            list(model.labels), value=known.get("label", next(iter(model.labels), None)), visible=bool(model.labels)
        ),
        gr.Slider(value=known.get("guidance_scale", model.guidance_scale or 1), visible=guided),
        {"setup": shown.canvas_setup(model), "drawing": None},
    ]


def _asset(name: str) -> str:
    """A script or a style of the page."""
    return (PAGE / name).read_text(encoding="utf-8")
