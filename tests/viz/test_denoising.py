"""The recorder shows what the pipeline makes, and changes nothing of it."""

import numpy as np
import pytest
import torch
from tiny import unconditional

from latentdiff.errors import InputError
from latentdiff.pipelines import codec, outputs
from latentdiff.viz import DenoisingRecorder


@pytest.fixture
def pipe(tmp_path):
    return unconditional(tmp_path)


def test_the_last_frame_is_the_result(pipe):
    recorder = DenoisingRecorder(every=3, count=2)
    plain = pipe(batch_size=2, num_inference_steps=8, seed=0).images
    images = pipe(batch_size=2, num_inference_steps=8, seed=0, callback_on_step_end=recorder).images
    assert all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(plain, images, strict=True))
    times = pipe.scheduler.timesteps.tolist()
    assert [t for t, _ in recorder.frames] == [times[0], times[3], times[6], times[7]]
    for seen, image in zip(recorder.frames[-1][1], images, strict=True):
        assert np.abs(np.array(seen).astype(int) - np.array(image)).max() <= 1  # decoded in another batch
    first = np.array(recorder.frames[0][1][0])
    assert np.abs(first.astype(int) - np.array(images[0])).max() > 1


def test_the_strip_has_a_row_an_image_and_a_column_a_step(pipe):
    recorder = DenoisingRecorder(every=2, count=2)
    pipe(batch_size=3, num_inference_steps=4, seed=0, callback_on_step_end=recorder)
    strip = np.array(recorder.strip(scale=3, margin=0, font_size=10))
    assert len(recorder.frames) == 3 and strip.shape[1] == 3 * 48
    step = len(strip) // 2
    for row in range(2):
        for column, (_, images) in enumerate(recorder.frames):
            cell = strip[row * step : row * step + 48, column * 48 : column * 48 + 48]
            assert np.array_equal(cell[::3, ::3], np.array(images[row]))
            assert strip[row * step + 48 : (row + 1) * step, column * 48 : column * 48 + 48].min() < 128  # its timestep


def test_another_call_begins_anew(pipe):
    recorder = DenoisingRecorder(every=1)
    for _ in range(2):
        pipe(num_inference_steps=2, seed=0, callback_on_step_end=recorder)
    assert len(recorder.frames) == 2
    kept = recorder(pipe, 0, torch.tensor(5), {"pred_original_sample": torch.zeros(1, 4, 8, 8)})
    assert kept == {} and len(recorder.frames) == 1


def test_the_frames_are_the_estimates_of_the_clean_images(pipe):
    seen = []

    def look(_, step, timestep, tensors):
        seen.append(tensors["pred_original_sample"])
        return {}

    look.tensor_inputs = ["pred_original_sample"]
    pipe(num_inference_steps=3, seed=0, callback_on_step_end=look)
    recorder = DenoisingRecorder(every=1)
    pipe(num_inference_steps=3, seed=0, callback_on_step_end=recorder)
    expected = [outputs.convert(codec.decode(pipe.vae, x0), "pil")[0] for x0 in seen]
    assert [np.array(image).tolist() for _, (image,) in recorder.frames] == [np.array(x).tolist() for x in expected]


def test_frames_without_the_decoder_are_previews(pipe):
    pipe.fit_preview()
    recorder = DenoisingRecorder(every=2, decode=False)
    latents = pipe(num_inference_steps=3, seed=0, callback_on_step_end=recorder, output_type="latent").images
    assert len(recorder.frames) == 2
    last = np.array(recorder.frames[-1][1][0])
    assert last.shape == (8, 8, 3) and np.array_equal(last, np.array(pipe.preview(latents)[0]))  # DDIM ends at x0


def test_bad_recorders():
    with pytest.raises(InputError, match="every is 0"):
        DenoisingRecorder(every=0)
    with pytest.raises(InputError, match="no step has been recorded; give the recorder to a pipeline"):
        DenoisingRecorder().strip()
