"""Every UNet of the 2022 zoo, at full size on the meta device, has the original's number of parameters."""

import pytest
import torch

from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.unet import UNet2DConditionModel

NO, YES = False, True


def unet(channels, width, multipliers, attention, **options):
    inputs, outputs = channels
    return {
        "in_channels": inputs,
        "out_channels": outputs,
        "block_out_channels": tuple(width * factor for factor in multipliers),
        "attention_levels": attention,
        **options,
    }


HC32 = {"num_head_channels": 32}
ZOO = {
    "celeba256": (274056163, unet((3, 3), 224, (1, 2, 3, 4), (NO, YES, YES, YES), **HC32)),
    "lsun_churches256": (
        294966916,
        unet(
            (4, 4),
            192,
            (1, 2, 2, 4, 4),
            (YES, YES, YES, YES, NO),
            num_attention_heads=8,
            resnet_time_scale_shift="scale_shift",
            resnet_resampling=True,
        ),
    ),
    "cin256": (394984196, unet((4, 4), 256, (1, 2, 4), (YES, YES, YES), cross_attention_dim=512, **HC32)),
    "cin256-v2": (
        400920579,
        unet((3, 3), 192, (1, 2, 3, 5), (NO, YES, YES, YES), cross_attention_dim=512, num_attention_heads=1),
    ),
    "text2img256": (403623939, unet((3, 3), 192, (1, 2, 3, 5), (NO, YES, YES, YES), cross_attention_dim=640, **HC32)),
    "txt2img-1p4B": (
        872300484,
        unet((4, 4), 320, (1, 2, 4, 4), (YES, YES, YES, NO), cross_attention_dim=1280, num_attention_heads=8),
    ),
    "layout2img": (
        246277379,
        unet(
            (3, 3),
            128,
            (1, 2, 3, 4),
            (NO, YES, YES, YES),
            cross_attention_dim=512,
            transformer_layers_per_block=3,
            **HC32,
        ),
    ),
    "bsr_sr": (113622563, unet((6, 3), 160, (1, 2, 2, 4), (NO, NO, NO, YES), **HC32)),
    "inpainting_big": (
        387245827,
        unet((7, 3), 256, (1, 2, 3, 4), (NO, YES, YES, YES), num_attention_heads=8, resnet_resampling=True),
    ),
    "semantic_synthesis": (215229315, unet((6, 3), 128, (1, 4, 8), (NO, NO, NO), num_attention_heads=8)),
    "rdm768": (1335480400, unet((16, 16), 448, (1, 2, 3, 4), (YES, YES, YES, NO), cross_attention_dim=768, **HC32)),
}


@pytest.mark.parametrize("name", ZOO)
def test_unet_parameter_count(name):
    expected, config = ZOO[name]
    with torch.device("meta"):
        model = UNet2DConditionModel(**config)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("expected", "width", "layers", "vocabulary", "positions"),
    [(186154682, 640, 32, 30522, 77), (581994042, 1280, 32, 30522, 77), (58858496, 512, 16, 8192, 92)],
)
def test_text_encoder_parameter_count(expected, width, layers, vocabulary, positions):
    with torch.device("meta"):
        model = LDMTextEncoder(
            vocab_size=vocabulary, max_position_embeddings=positions, hidden_size=width, num_hidden_layers=layers
        )
    dropped_logits = (width + 1) * vocabulary
    assert sum(parameter.numel() for parameter in model.parameters()) + dropped_logits == expected
