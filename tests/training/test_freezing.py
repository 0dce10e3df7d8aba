"""Parts of a diffusion model that stay as they are."""

import pytest
import torch
import toy
from safetensors.torch import load_file
from tiny import tiny_text_to_image

from latentdiff import ConfigError

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_text_to_image(tmp_path_factory.mktemp("start"))


def train(data, start, output, **options):
    text = {"conditioning.vocabulary": None, "conditioning.text_encoder": {}, "unet": {}}
    return toy.train(
        "text-to-image", data, None, output, pretrained_model_name_or_path=str(start), **{**text, **options}
    )


def changed(start, output, part):
    """The names of a component's weights that training has changed, and of the others."""
    file = next((start / part).glob("*.safetensors")).name
    old, new = (load_file(folder / part / file) for folder in (start, output / "pipeline"))
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    return moved, old.keys() - moved


def test_what_a_pattern_names_stays(data, start, tmp_path):
    output = train(data, start, tmp_path, freeze=["text_encoder", "unet.down_blocks.*", "unet.conv_in.bias"])
    assert not changed(start, output, "text_encoder")[0]
    moved, kept = changed(start, output, "unet")
    assert kept == {name for name in moved | kept if name.startswith("down_blocks.") or name == "conv_in.bias"}
    averages = load_file(output / "checkpoint-4" / "ema.safetensors")
    assert {name.removeprefix("unet.") for name in averages} == moved


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (
            ["unet.down_block"],
            r"freeze has 'unet\.down_block', which names nothing .*; did you mean 'unet",
        ),
        (["vae"], "freeze has 'vae', which names nothing that is trained"),
        (["*"], r"freeze is \['\*'\], which leaves nothing to train"),
        (["unet", "text_encoder"], "which leaves nothing to train; leave some of it out"),
    ],
)
def test_bad_patterns_are_one_line(data, start, tmp_path, freeze, message):
    with pytest.raises(ConfigError, match=message) as caught:
        train(data, start, tmp_path / "out", freeze=freeze)
    assert "\n" not in str(caught.value)
