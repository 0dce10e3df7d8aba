"""The text transformer: files, gradients, refusals."""

import pytest
import torch

from latentdiff.errors import ConfigError, InputError
from latentdiff.models.text_encoder import LDMTextEncoder

TINY = {"vocab_size": 50, "max_position_embeddings": 9, "hidden_size": 32, "num_hidden_layers": 2}


def test_save_load_and_short_sequences(tmp_path):
    model = LDMTextEncoder(**TINY, num_attention_heads=2, attention_head_dim=8).eval()
    model.save_pretrained(tmp_path)
    again = LDMTextEncoder.from_pretrained(tmp_path)
    ids = torch.arange(10).reshape(2, 5)
    assert torch.equal(again(ids).last_hidden_state, model(ids, return_dict=False)[0])
    assert again.config.max_position_embeddings == 9


def test_gradient_checkpointing():
    model = LDMTextEncoder(**TINY).train()
    ids = torch.arange(18).reshape(2, 9)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        model(ids).last_hidden_state.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(1, 10, dtype=torch.long), "at most 9"),
        (torch.zeros(9, dtype=torch.long), "at most 9"),
        (torch.zeros(1, 9), "float32"),
        (torch.full((1, 9), 50), "0 to 49"),
    ],
)
def test_bad_inputs(ids, message):
    with pytest.raises(InputError, match=message):
        LDMTextEncoder(**TINY)(ids)


def test_bad_configuration():
    with pytest.raises(ConfigError, match="hidden_size"):
        LDMTextEncoder(hidden_size=0)
