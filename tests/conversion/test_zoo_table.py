"""Every published model at full size on the meta device: all names map both ways, all shapes and counts are right."""

from pathlib import Path

import pytest
import torch
from twins import zoo_plan

from latentdiff.conversion.inventory import EMA_PREFIX, account_for
from latentdiff.conversion.plan import COND_STAGE_PREFIX, FIRST_STAGE_PREFIX, UNET_PREFIX
from latentdiff.conversion.zoo import ONE_NETWORK, recognise, zoo_config, zoo_names
from latentdiff.errors import CheckpointError, ConfigError

# First stage, UNet and conditioning stage, as counted in the original code (its unused to_logits left out).
PARAMETERS = {
    "kl-f4": {"vae": 55312063},
    "kl-f8": {"vae": 83653863},
    "kl-f16": {"vae": 69610963},
    "kl-f32": {"vae": 103880131},
    "vq-f4": {"vae": 55322782},
    "vq-f4-noattn": {"vae": 53219486},
    "vq-f8": {"vae": 67717295},
    "vq-f8-n256": {"vae": 67652783},
    "vq-f16": {"vae": 69593371},
    "celeba256": {"unet": 274056163, "vae": 55322782},
    "ffhq256": {"unet": 274056163, "vae": 55322782},
    "lsun_beds256": {"unet": 274056163, "vae": 55322782},
    "lsun_churches256": {"unet": 294966916, "vae": 83653863},
    "cin256": {"unet": 394984196, "vae": 67717295, "class_embedder": 512000},
    "cin256-v2": {"unet": 400920579, "vae": 55322782, "class_embedder": 512512},
    "text2img256": {"unet": 403623939, "vae": 55322782, "text_encoder": 186154682 - 641 * 30522},
    "txt2img-1p4B": {"unet": 872300484, "vae": 83653863, "text_encoder": 581994042 - 1281 * 30522},
    "layout2img-openimages256": {"unet": 246277379, "vae": 55322782, "layout_encoder": 58858496 - 513 * 8192},
    "bsr_sr": {"unet": 113622563, "vae": 55322782},
    "inpainting_big": {"unet": 387245827, "vae": 53219486},
    "semantic_synthesis256": {"unet": 215229315, "vae": 55322782, "segmentation_encoder": 546},
    "semantic_synthesis512": {"unet": 215229315, "vae": 55322782, "segmentation_encoder": 546},
    "rdm768": {"unet": 1335480400, "vae": 69610963},
    "sd-1": {"unet": 859520964, "vae": 83653863, "text_encoder": 123060480},
    "sd-1-inpaint": {"unet": 859535364, "vae": 83653863, "text_encoder": 123060480},
    "sd-2-inpaint": {"unet": 865925124, "vae": 83653863, "text_encoder": 340387840},
    "sd-2-base": {"unet": 865910724, "vae": 83653863, "text_encoder": 340387840},
    "sd-2-v": {"unet": 865910724, "vae": 83653863, "text_encoder": 340387840},
}
UNDECIDED = {"sd-2-base", "sd-2-v"}


def shapes_of(plan):
    shapes = {}
    for part in plan.parts.values():
        shapes |= part.map.original_shapes
    if plan.shared_first_stage:
        first = {key: shape for key, shape in shapes.items() if key.startswith(FIRST_STAGE_PREFIX)}
        shapes |= {COND_STAGE_PREFIX + key.removeprefix(FIRST_STAGE_PREFIX): shape for key, shape in first.items()}
    return shapes


def test_table_is_the_zoo():
    assert set(PARAMETERS) == set(zoo_names())


@pytest.mark.thorough
@pytest.mark.parametrize("name", PARAMETERS)
def test_names_shapes_and_counts(name):
    plan = zoo_plan(name)
    assert {part: sum(p.numel() for p in plan.parts[part].model.parameters()) for part in plan.parts} == PARAMETERS[
        name
    ]
    for part in plan.parts.values():
        # Forth and back on the meta device: every tensor of either side is reached, with its shape.
        theirs = part.map.original_shapes
        ours = dict(part.map.to_ours(lambda key: torch.empty(theirs[key], device="meta")))  # noqa: B023
        assert {key: tuple(tensor.shape) for key, tensor in ours.items()} == part.map.shapes
        back = dict(part.map.to_original(ours.__getitem__))
        assert {key: tuple(tensor.shape) for key, tensor in back.items()} == theirs
    shapes = shapes_of(plan)
    account_for(plan, shapes, ema=True)
    if name in UNDECIDED:
        with pytest.raises(ConfigError, match="sd-2-base and sd-2-v"):
            recognise(shapes)
    else:
        same = next((group for group in ONE_NETWORK if name in group), {name})
        assert recognise(shapes)[0] in same


def test_wrong_config_names_the_first_tensors():
    plan = zoo_plan("cin256")
    with pytest.raises(CheckpointError, match=r"does not fit its config: \d+ missing \(.*give the config"):
        account_for(plan, shapes_of(zoo_plan("celeba256")), ema=True)


def test_averages_must_be_whole():
    plan = zoo_plan("celeba256")
    shapes = shapes_of(plan)
    names = [key for key in shapes if key.startswith(UNET_PREFIX)]
    averages = {EMA_PREFIX + key.removeprefix("model.").replace(".", ""): shapes[key] for key in names}
    assert len(account_for(plan, {**shapes, **averages}, ema=True).sources) == len(names)
    averages.popitem()
    with pytest.raises(CheckpointError, match="unet does not fit its config: 1 missing"):
        account_for(plan, {**shapes, **averages}, ema=True)


def test_nothing_of_the_kind():
    with pytest.raises(CheckpointError, match="no latent diffusion model"):
        recognise({"lora_unet_down.weight": (4, 4)})
    with pytest.raises(ConfigError, match="did you mean 'vq-f8'"):
        zoo_config("vqf8")


@pytest.mark.thorough
def test_documentation_has_the_table():
    """Each row of docs/conversion.md is what the networks say."""
    text = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text(encoding="utf-8")
    for name in zoo_names():
        plan = zoo_plan(name)
        counts = {part: sum(p.numel() for p in plan.parts[part].model.parameters()) for part in plan.parts}
        vae, unet = counts.pop("vae"), counts.pop("unet", None)
        rest = ", ".join(f"{count:,}" for count in counts.values()) or "-"
        row = f"| {name} | {plan.task or 'first stage'} | {f'{unet:,}' if unet else '-'} | {vae:,} | {rest} |"
        assert row in text, row
