"""The caches of latents and captions: a full disk is one line, what was cut off is made anew, nothing is sent twice."""

import json
import multiprocessing.reduction
import os
import resource
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
import toy
from tiny import tiny_text_to_image

from latentdiff import InputError
from latentdiff.training.data import open_training_images
from latentdiff.training.diffusion.build import make_conditioner

pytestmark = pytest.mark.thorough


@contextmanager
def file_limit(size):
    """The largest size of a file, beyond which writing fails as on a full disk; pytest's own output may be a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_text_to_image(tmp_path_factory.mktemp("start"))


def frozen(start, data, output):
    """A recipe that goes on from a text model whose encoder stays as it is."""
    options = {
        "pretrained_model_name_or_path": str(start),
        "unet": {},
        "conditioning.text_encoder": {},
        "conditioning.vocabulary": None,
        "conditioning.train_text_encoder": False,
    }
    return toy.recipe("text-to-image", data, None, output, **options)


def test_no_space_for_latents_is_one_line(data, vae, tmp_path):
    moments = toy.train("unconditional", data, vae, tmp_path / "a", max_train_steps=1) / "latents" / "moments.npy"
    message = r"^cannot write .*b/latents: .*; free some space or choose another output$"
    with file_limit(moments.stat().st_size - 1), pytest.raises(InputError, match=message):
        toy.train("unconditional", data, vae, tmp_path / "b", max_train_steps=1)
    assert not list((tmp_path / "b").glob("*latents*")) and not list((tmp_path / "b").glob(".latents*"))


def rows_of(recipe):
    images = open_training_images(recipe, 3)
    return make_conditioner(recipe, images).rows(images)


def test_no_space_for_captions_is_one_line(start, data, tmp_path):
    rows_of(frozen(start, data, tmp_path / "a"))
    (cache,) = (tmp_path / "a" / "captions").iterdir()
    message = r"^cannot write .*captions.*; free some space or choose another output$"
    with file_limit(cache.stat().st_size - 1), pytest.raises(InputError, match=message):
        rows_of(frozen(start, data, tmp_path / "b"))
    assert list((tmp_path / "b" / "captions").iterdir()) == []


@pytest.mark.parametrize("size", [0, 100, -1])
def test_caches_that_were_cut_off_are_made_anew(start, data, vae, tmp_path, size):
    output = toy.train("unconditional", data, vae, tmp_path / "a", max_train_steps=1)
    rows_of(frozen(start, data, output))
    files = [output / "latents" / "moments.npy", *(output / "captions").iterdir()]
    whole = [path.read_bytes() for path in files]
    for path, content in zip(files, whole, strict=True):
        os.truncate(path, size % len(content))
    toy.train("unconditional", data, vae, output, max_train_steps=2, resume_from_checkpoint="latest")
    rows_of(frozen(start, data, output))
    assert [path.read_bytes() for path in files] == whole


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"first_stage": 1}', b"\xff"])
def test_a_damaged_stamp_of_latents_is_none(data, vae, tmp_path, content):
    output = toy.train("unconditional", data, vae, tmp_path / "a", max_train_steps=1)
    stamp, moments = output / "latents" / "meta.json", np.load(output / "latents" / "moments.npy")
    before = stamp.read_bytes()
    stamp.write_bytes(content)
    toy.train("unconditional", data, vae, output, max_train_steps=2, resume_from_checkpoint="latest")
    assert stamp.read_bytes() == before
    assert np.array_equal(np.load(output / "latents" / "moments.npy"), moments)


def test_captions_are_not_copied_to_processes_that_start_afresh(start, data, vae, tmp_path):
    """Token ids go by shared memory, states by their file."""
    rows = {row["file_name"]: row | {"text": ["a red star"] * 200} for row in toy.lines(data)}
    many = shutil.copytree(data, tmp_path / "many")
    (many / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows.values())))
    for recipe in (frozen(start, many, tmp_path / "a"), toy.recipe("text-to-image", many, vae, tmp_path / "b")):
        content = multiprocessing.reduction.ForkingPickler.dumps(rows_of(recipe))
        assert len(content) < 4000
