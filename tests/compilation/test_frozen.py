"""Networks with frozen weights: results are those uncompiled, and never those of other weights or shapes."""

import copy
import pickle
import threading

import pytest
import tiny
import torch
import torch._inductor.config
from diffusers import AutoencoderKL

from latentdiff import ConfigError, ImageToImagePipeline, InputError, UnconditionalPipeline
from latentdiff.compilation import artefacts
from latentdiff.compilation.calls import flatten_unet
from latentdiff.errors import LatentDiffWarning
from latentdiff.nn.context import ContextCache

pytestmark = pytest.mark.thorough

LATENTS = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def make_pipe():
    """A pipeline whose decoder is as small as one can be."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4,),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
        sample_size=4,
    )
    parts = tiny._parts(None)
    pipe = UnconditionalPipeline(vae=vae.eval(), unet=parts["unet"].eval(), scheduler=parts["scheduler"])
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder with the program of `make_pipe`'s decoder for two latents, compiled once for all tests."""
    folder = tmp_path_factory.mktemp("programs")
    # Headers that are compiled beforehand take 300 MB and longer than they save for one program.
    plain = torch._inductor.config.patch({"aot_inductor.precompile_headers": False})
    with pytest.MonkeyPatch.context() as patch, plain:
        patch.setattr(artefacts, "default_programs_folder", lambda: folder)
        pipe = make_pipe()
        pipe.compile("vae")
        decode(pipe)
    return folder


@pytest.fixture
def no_compiler():
    """A machine without a C++ compiler, so that whatever is compiled comes from the disk."""
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


@pytest.fixture
def pipe(cache, monkeypatch, no_compiler):
    monkeypatch.setattr(artefacts, "default_programs_folder", lambda: cache)
    return make_pipe()


@torch.no_grad()
def decode(pipe, latents=LATENTS):
    return pipe.vae.decode(latents).sample


def compiled(pipe, **options):
    pipe.compile("vae", **options)
    return pipe


def is_compiled(pipe):
    """Whether the decoder's program is what computes, by the memory that its loaded programs stand for."""
    return any(vars(pipe.vae.decoder)["forward"].programs.loaded.values())


def test_a_program_from_disk_gives_what_the_network_gives(pipe):
    expected = decode(pipe)
    found = decode(compiled(pipe))
    assert is_compiled(pipe)
    assert torch.allclose(found, expected, atol=1e-5) and found.std() > 0.01
    pipe.uncompile()
    assert torch.equal(decode(pipe), expected)


def test_latents_that_lie_channels_last_have_the_same_program(pipe):
    expected = decode(pipe)
    found = decode(compiled(pipe), LATENTS.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(found, expected, atol=1e-5) and len(vars(pipe.vae.decoder)["forward"].programs.loaded) == 1


@pytest.mark.parametrize("latents", [LATENTS[:1], LATENTS[..., :2], LATENTS.double()])
def test_another_shape_needs_another_program(pipe, latents):
    pipe.vae.to(latents.dtype)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        decode(compiled(pipe), latents)


def change_in_place(vae):
    with torch.no_grad():
        vae.decoder.conv_out.bias.add_(1)


def replace_a_weight(vae):
    vae.decoder.conv_out.bias = torch.nn.Parameter(vae.decoder.conv_out.bias.detach() + 1)


def replace_a_layer(vae):
    vae.decoder.conv_out = copy.deepcopy(vae.decoder.conv_out)
    change_in_place(vae)


def load_others(vae):
    state = vae.state_dict()
    vae.load_state_dict({**state, "decoder.conv_out.bias": state["decoder.conv_out.bias"] + 1})


@pytest.mark.parametrize("change", [change_in_place, replace_a_weight, replace_a_layer, load_others])
def test_changed_weights_need_another_program(pipe, change):
    compiled(pipe, planned_calls={"vae": 10**9})
    before = decode(pipe)
    assert is_compiled(pipe)
    change(pipe.vae)
    after = decode(pipe)  # which the old program does not give
    assert not is_compiled(pipe)
    assert torch.allclose(after, before + 1, atol=1e-5)
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        decode(compiled(pipe))


def test_weights_that_change_back_have_their_program_again(pipe):
    compiled(pipe, planned_calls={"vae": 10**9})
    before, bias = decode(pipe), pipe.vae.decoder.conv_out.bias.detach().clone()
    change_in_place(pipe.vae)
    decode(pipe)
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.copy_(bias)
    assert torch.equal(decode(pipe), before) and is_compiled(pipe)


def test_gradients_flow_through_the_network_itself(pipe):
    expected = decode(pipe)
    latents = LATENTS.clone().requires_grad_()
    image = compiled(pipe).vae.decode(latents).sample
    image.sum().backward()
    assert torch.equal(image, expected) and latents.grad.abs().sum() > 0
    assert not is_compiled(pipe)


@pytest.mark.parametrize("state", ["training", "autocast"])
def test_what_a_program_does_not_know_runs_uncompiled(pipe, state):
    compiled(pipe)
    pipe.vae.train(state == "training")
    with torch.autocast("cpu", enabled=state == "autocast"):
        decode(pipe)
    assert not is_compiled(pipe)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_a_copy_runs_by_weights_of_its_own(pipe, again):
    before = decode(compiled(pipe))
    vae = again(pipe.vae)
    with torch.no_grad():
        assert torch.equal(vae.decode(LATENTS).sample, before)
        change_in_place(pipe.vae)
        assert torch.equal(vae.decode(LATENTS).sample, before)


def test_threads_share_a_program(pipe):
    expected = decode(compiled(pipe))
    found = []
    threads = [threading.Thread(target=lambda: found.append(decode(pipe))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(image, expected) for image in found)


def test_pipelines_that_share_networks_share_what_is_compiled(pipe):
    before = decode(compiled(pipe))
    other = ImageToImagePipeline.from_pipe(pipe)
    assert torch.equal(decode(other), before) and is_compiled(other)


def test_planned_work_goes_on_uncompiled_where_it_cannot_be_compiled(pipe):
    latents = LATENTS[:1]
    expected = decode(pipe, latents)
    compiled(pipe, planned_calls={"vae": 10**9})
    for _ in range(3):  # whose time is taken
        assert torch.equal(decode(pipe, latents), expected)
    with pytest.warns(LatentDiffWarning, match="the vae runs uncompiled: compiling needs a C\\+\\+ compiler"):
        assert torch.equal(decode(pipe, latents), expected)
    assert torch.equal(decode(pipe, latents), expected)  # said once


def test_a_damaged_program_is_compiled_anew(pipe, cache, tmp_path, monkeypatch):
    [whole] = cache.glob("*/program.so")
    folder = tmp_path / whole.parent.name
    folder.mkdir()
    monkeypatch.setattr(artefacts, "default_programs_folder", lambda: tmp_path)
    (folder / "program.json").write_bytes((whole.parent / "program.json").read_bytes())
    (folder / "program.so").write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        decode(compiled(pipe))
    (folder / "program.so").write_bytes(whole.read_bytes())
    decode(compiled(pipe))
    assert is_compiled(pipe)


def test_a_program_of_another_version_is_left_alone(pipe, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with pytest.raises(ConfigError, match="needs a C\\+\\+ compiler"):
        decode(compiled(pipe))


@pytest.mark.parametrize("explicit", [True, False])
def test_a_cache_that_cannot_be_written(pipe, tmp_path, monkeypatch, explicit):
    (tmp_path / "file").touch()
    monkeypatch.setattr(artefacts, "default_programs_folder", lambda: tmp_path / "file")
    if explicit:
        with pytest.raises(InputError, match=r"cannot write .*HF_ASSETS_CACHE"):
            decode(compiled(pipe))
        return
    compiled(pipe, planned_calls={"vae": 10**9})
    with pytest.warns(LatentDiffWarning, match=r"the vae runs uncompiled: cannot write .*HF_ASSETS_CACHE"):
        for _ in range(4):
            decode(pipe)


def test_a_call_that_no_program_takes_runs_uncompiled_and_says_so(pipe):
    expected = pipe.vae.decoder(LATENTS)
    compiled(pipe)
    with torch.no_grad(), pytest.warns(LatentDiffWarning, match="the vae runs uncompiled with the arguments sample"):
        found = pipe.vae.decoder(sample=LATENTS)  # by its name, as no first stage does
    assert torch.equal(found, expected) and not is_compiled(pipe)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "UNet with no context, branch None, cached False"),
        ({"encoder_hidden_states": torch.ones(2, 3, 4)}, "UNet with context, branch None, cached False"),
        (
            {"encoder_hidden_states": ContextCache((torch.ones(2),), (torch.ones(2),))},
            "UNet with keys and values, branch None, cached False",
        ),
        ({"cross_attention_kwargs": {"scale": 0.5}}, None),
        ({"cross_attention_kwargs": None, "timestep_cond": None}, "UNet with no context, branch None, cached False"),
        ({"encoder_hidden_states": "a"}, None),
    ],
)
def test_calls_of_the_unet_that_can_be_compiled(options, kind):
    call = flatten_unet(torch.nn.Identity(), LATENTS, 7, **options)
    assert (None if call is None else call.program.kind) == kind


def test_every_scheduler_s_timesteps_are_of_one_signature():
    """Numbers, and tensors of integers or floats."""
    whens = (7, 7.0, torch.tensor(7), torch.tensor(7, dtype=torch.int32), torch.tensor(7.0, dtype=torch.float64))
    calls = [flatten_unet(torch.nn.Identity(), LATENTS, when) for when in whens]
    assert len({call.signature for call in calls}) == 1
    assert all(torch.equal(call.tensors[1], torch.tensor(7.0)) for call in calls)
    several = flatten_unet(torch.nn.Identity(), LATENTS, torch.tensor([7, 8]))
    assert several.signature != calls[0].signature
    assert flatten_unet(torch.nn.Identity(), LATENTS, True) is None
