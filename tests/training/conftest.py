"""What most training tests start with: toy images, and an untrained first stage for them."""

import pytest
import torch
import toy


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("first_stage"))
