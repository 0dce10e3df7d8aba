"""A hub that only this test sees, and a cache that only this test fills."""

import pytest
from huggingface_hub import constants
from loopback_hub import TOKEN, LoopbackHub
from tiny import tiny_text_to_image


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = LoopbackHub()
    # The client reads its environment when it is imported, which other tests have done already.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    server.cache = tmp_path / "cache"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A text-to-image model of random weights; tests don't write into it."""
    return tiny_text_to_image(tmp_path_factory.mktemp("tiny"))
