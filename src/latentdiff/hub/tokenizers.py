"""A text encoder's tokenizer that lies by itself, in a folder or on the hub."""

from __future__ import annotations

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from latentdiff.errors import CheckpointError
from latentdiff.hub.component_folder import TOKENIZER_CONFIG, ComponentFolder, library_errors
from latentdiff.hub.confinement import check_config
from latentdiff.hub.find import find_component
from latentdiff.hub.tokenizer_files import check_tokenizer_files, check_tokenizer_loaded

CONFIG = "config.json"


def load_tokenizer_folder(name: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer of transformers, of the class that its files name. No code of theirs is run.

    Args:
        name: A folder, or a hub id.

    Raises:
        CheckpointError: If there is no such folder, or its files are missing or damaged, or stand for something outside
            of the folder.
        HubError: If the hub doesn't know it or can't be reached.
    """
    folder = find_component(name, "give a tokenizer's folder, or a hub id of the form owner/name", TOKENIZER_CONFIG)
    part = ComponentFolder.open(folder)
    with library_errors(folder):
        class_name = part.read(TOKENIZER_CONFIG).get("tokenizer_class") if TOKENIZER_CONFIG in part.names else None
        kind = getattr(transformers, str(class_name), PreTrainedTokenizerFast)
        if not isinstance(kind, type) or not issubclass(kind, PreTrainedTokenizerFast):
            raise CheckpointError(f"{folder} is a {class_name}, which is no fast tokenizer such as CLIPTokenizer")
        check_tokenizer_files(part, kind)
        if CONFIG in part.names:  # of the model beside it, which AutoTokenizer asks for the kind of tokenizer
            check_config(folder / CONFIG, part.read(CONFIG), part.parameters)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise CheckpointError(f"{folder} is a {type(tokenizer).__name__}, which is no fast tokenizer")
    check_tokenizer_loaded(part, tokenizer)
    return tokenizer
