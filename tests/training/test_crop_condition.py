"""A network that is told which part of an image it sees: in training the part, in pipelines the whole image."""

import pytest
import torch
import toy

from latentdiff import DiffusionPipeline, InputError, UNet2DConditionModel
from latentdiff.conditioning import Conditioning
from latentdiff.sampling import Denoiser

WHOLE = torch.tensor([[1.0, 0.5, 0.5]])
PARTS = torch.tensor([[1.0, 0.5, 0.5], [0.4, 0.5, 0.5], [1.0, 0.1, 0.5], [1.0, 0.5, 0.1]])


@pytest.fixture
def unet():
    torch.manual_seed(0)
    network = UNet2DConditionModel(**toy.UNET, crop_condition=True).eval()
    toy.randomise(network)
    return network


@pytest.fixture
def sample():
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_what_is_not_told_is_the_whole_image(unet, sample):
    unsaid = unet(sample, 5).sample
    assert torch.equal(unsaid, unet(sample, 5, crop=WHOLE).sample)
    told = unet(sample.expand(4, -1, -1, -1), 5, crop=PARTS).sample
    assert torch.allclose(told[:1], unsaid, rtol=0, atol=1e-5)
    assert all((told[0] - other).abs().max() > 1e-3 for other in told[1:])
    steps = torch.tensor([5, 7])
    prepared = Denoiser(unet, Conditioning(), timesteps=steps)(sample, steps[0], 0.0)
    assert torch.allclose(prepared, unsaid, rtol=0, atol=1e-5)


def test_a_new_network_begins_without_a_difference(sample):
    plain, told = (UNet2DConditionModel(**toy.UNET, crop_condition=on).eval() for on in (False, True))
    told.load_state_dict(plain.state_dict(), strict=False)
    torch.nn.init.normal_(plain.conv_out.weight)
    told.conv_out.load_state_dict(plain.conv_out.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(sample, 5).sample, told(sample, 5, crop=PARTS[1:2]).sample)


def test_bad_crops_are_refused(unet, sample):
    plain = UNet2DConditionModel(**toy.UNET)
    with pytest.raises(InputError, match="this network has no crop_condition; leave it out"):
        plain(sample, 5, crop=WHOLE)
    with pytest.raises(InputError, match=r"crop has shape \(1, 2\); give \(B, 3\)"):
        unet(sample, 5, crop=WHOLE[:, :2])
    with pytest.raises(InputError, match="crop is given with a prepared timestep"):
        unet(sample, unet.prepare_timesteps(torch.tensor([5]))[0], crop=WHOLE)


@pytest.mark.thorough
def test_training_tells_the_parts_and_pipelines_ask_for_the_whole(tmp_path, monkeypatch):
    data, vae, told = toy.write(tmp_path / "data"), toy.write_vae(tmp_path / "vae"), []
    forward = UNet2DConditionModel.forward

    def heard(self, *args, crop=None, **options):
        told.append(crop)
        return forward(self, *args, crop=crop, **options)

    monkeypatch.setattr(UNet2DConditionModel, "forward", heard)
    options = {"data.crop": "random", "data.min_crop": 0.5, "unet": {**toy.UNET, "crop_condition": True}}
    toy.train("class-to-image", data, vae, tmp_path / "run", **options)
    zooms = torch.cat(told)[:, 0]
    assert zooms.shape == (16,) and zooms.unique().numel() > 8 and zooms.min() >= 0.5 and zooms.max() <= 1
    monkeypatch.undo()
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert pipe.unet.config.crop_condition and pipe.unet.crop_embedding.linear_2.weight.abs().max() > 0
    assert pipe("red", num_inference_steps=2, seed=0).images[0].size == (toy.SIDE, toy.SIDE)
    told.clear()
    monkeypatch.setattr(UNet2DConditionModel, "forward", heard)
    options |= {"pretrained_model_name_or_path": str(tmp_path / "run" / "pipeline"), "unet": {}}
    options |= {"noise_schedule": {}, "distill": {"guidance_scale": 2.0, "solver_steps": 4}, "max_train_steps": 1}
    toy.train("class-to-image", data, None, tmp_path / "few", **options)
    student, *others = told[0], *told[1:]  # two evaluations of the student, one of the teacher with guidance
    assert len(told) == 3 and student.shape == (4, 3) and len(student[:, 0].unique()) == 4
    assert all(torch.equal(student, other) for other in others)
