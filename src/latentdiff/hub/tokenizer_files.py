"""The files of a tokenizer of transformers: what they may say, and whether the tokenizer is theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from latentdiff.errors import CheckpointError
from latentdiff.hub.component_folder import TOKENIZER, TOKENIZER_CONFIG, ComponentFolder
from latentdiff.hub.confinement import READ_SUFFIXES
from latentdiff.hub.expressions import may_take_endless_time
from latentdiff.hub.json_files import LARGEST_JSON
from latentdiff.types import JSON

SPECIAL_TOKENS, ADDED_TOKENS = "special_tokens_map.json", "added_tokens.json"

# Arguments of tokenizers that name files or code. The class's own files are found in the folder whatever is said here.
FOUND_IN_FOLDER = ("tokenizer_file", "special_tokens_map_file", "added_tokens_file", "chat_template_file")
REFUSED = re.compile(r"\w*_files?|vocab|merges|tokenizer_object|init_inputs|auto_map|trust_remote_code")
SPECIAL_ENTRY = re.compile(r"\w+_tokens?")

LARGEST_ID = 2**21
SAMPLES, SPAN = 64, 4096  # tokens whose numbers are compared, and bytes of the file in which each is looked for
VOCABULARY_ENTRY = re.compile(rb'("(?:[^"\\]|\\.)*")\s*:\s*(\d+)\s*[,}]')


def check_tokenizer_files(part: ComponentFolder, kind: type[PreTrainedTokenizerFast]) -> None:
    """Refuse a tokenizer that would be made of other files than its folder's, or of expressions that take for ever.

    Args:
        part: The tokenizer's folder.
        kind: Its class.

    Raises:
        CheckpointError: If an entry of its files names other files or code, isn't what belongs there, or is an
            expression that may take endless time; or if the files of the vocabulary are missing.
    """
    for path in (part.path / name for name in part.names if name.endswith(READ_SUFFIXES)):
        if path.is_file() and path.stat().st_size > LARGEST_JSON:
            raise CheckpointError(f"{path} is larger than any tokenizer's file; don't use the model")
    _check_settings(part, kind)
    _check_tokens(part)
    if TOKENIZER not in part.names and not any(name.endswith(".model") for name in part.names):
        needed = {file for name, file in kind.vocab_files_names.items() if name != "tokenizer_file"} or {TOKENIZER}
        lacking = sorted(needed - set(part.names))
        if lacking:
            raise CheckpointError(f"{part.path} lacks {' and '.join(lacking)}; fetch or save the model again")
    if TOKENIZER in part.names and kind.__init__ is PreTrainedTokenizerFast.__init__:
        _check_rules(part.path / TOKENIZER, part.read(TOKENIZER))  # other classes have rules of their own


def _check_settings(part: ComponentFolder, kind: type[PreTrainedTokenizerFast]) -> None:
    """Refuse arguments of the tokenizer that are files or code."""
    if TOKENIZER_CONFIG not in part.names:
        return
    harmless = {*FOUND_IN_FOLDER, *kind.vocab_files_names}
    for name, value in _entries(part.read(TOKENIZER_CONFIG)):
        if REFUSED.fullmatch(name) and name not in harmless and value not in (None, False, [], {}):
            raise CheckpointError(
                f"{part.path / TOKENIZER_CONFIG}: {name} stands for a file or for code; take the entry out, or don't "
                "use the model"
            )
    added = part.read(TOKENIZER_CONFIG).get("added_tokens_decoder") or {}
    if not isinstance(added, dict) or not all(re.fullmatch(r"\d{1,7}", number) for number in added):
        raise CheckpointError(f"{part.path / TOKENIZER_CONFIG}: added_tokens_decoder is no object of numbers of tokens")


def _check_tokens(part: ComponentFolder) -> None:
    """Refuse special and added tokens that are none; those of the first kind become arguments of the tokenizer."""
    if SPECIAL_TOKENS in part.names:
        for name, value in part.read(SPECIAL_TOKENS).items():
            if not SPECIAL_ENTRY.fullmatch(name) or not isinstance(value, (str, dict, list, type(None))):
                raise CheckpointError(
                    f"{part.path / SPECIAL_TOKENS}: {name} is no special token; take the entry out, or don't use the "
                    "model"
                )
    if ADDED_TOKENS in part.names:
        for token, number in part.read(ADDED_TOKENS).items():
            if type(number) is not int or not 0 <= number < LARGEST_ID:
                raise CheckpointError(f"{part.path / ADDED_TOKENS}: {token!r} has no token's number; fetch it again")


def check_tokenizer_loaded(part: ComponentFolder, tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that a tokenizer has the vocabulary of its files, and in it what fills up a prompt and what it can't read.

    A sample is compared: reading a whole vocabulary takes as long as a tenth of a model's load. Only where it can't be
    had, or differs, the whole is read.

    Raises:
        CheckpointError: If a token is missing or has another number.
    """
    for name, token in (("pad_token", tokenizer.pad_token), ("unk_token", tokenizer.unk_token)):
        needed = token is not None or name == "pad_token"  # some have bytes for whatever is no token
        if needed and (token is None or tokenizer.backend_tokenizer.token_to_id(str(token)) is None):
            raise CheckpointError(f"{part.path}: {name} is {token!r:.80}, no token of the vocabulary; change it")
    sample = dict(_sample(part))
    if sample and not _other(tokenizer, sample):
        return
    other = _other(tokenizer, _vocabulary(part))
    if other:
        raise CheckpointError(
            f"{part.path} has been loaded without its vocabulary ({len(other)} tokens are other ones, such as "
            f"{other[0]!r}); fetch or save the model again"
        )


def _other(tokenizer: PreTrainedTokenizerFast, vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens of a vocabulary that a tokenizer has under another number, or not at all."""
    numbers = tokenizer.convert_tokens_to_ids(list(vocabulary))
    return [token for (token, kept), number in zip(vocabulary.items(), numbers, strict=True) if number != kept]


def _sample(part: ComponentFolder) -> Iterator[tuple[str, int]]:
    """Some tokens and their numbers, from places all over the file of a vocabulary that is an object."""
    name = next((name for name in (TOKENIZER, "vocab.json") if name in part.names), None)
    if name is None:
        return
    data = (part.path / name).read_bytes()
    begin = data.find(b'"vocab"') if name == TOKENIZER else 0
    end = data.find(b'"merges"', begin)
    end = len(data) if end < begin else end
    for number in range(SAMPLES if begin >= 0 else 0):
        place = begin + (end - begin) * number // SAMPLES
        if entry := VOCABULARY_ENTRY.search(data, place, min(place + SPAN, end)):
            yield json.loads(entry[1]), int(entry[2])


def _vocabulary(part: ComponentFolder) -> dict[str, int]:
    """All tokens of the files and their numbers; empty where they are in a file that is no text."""
    if TOKENIZER in part.names:
        model = part.read(TOKENIZER).get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    elif "vocab.json" in part.names:
        vocabulary = part.read("vocab.json")
    elif "vocab.txt" in part.names:
        vocabulary = (part.path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    else:
        return {}
    if isinstance(vocabulary, list):
        return {token if isinstance(token, str) else token[0]: number for number, token in enumerate(vocabulary)}
    return vocabulary if isinstance(vocabulary, dict) else {}


def _check_rules(path: Path, rules: JSON) -> None:
    """Refuse rules of a tokenizer that aren't of the kinds that belong there, or take endless time or memory."""
    model = rules.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), (dict, list)):
        raise CheckpointError(f"{path} has no model with a vocabulary; fetch or save the model again")
    for name, value in _entries(
        {name: value for name, value in rules.items() if name not in ("model", "added_tokens")}
    ):
        if name == "Regex" and (not isinstance(value, str) or may_take_endless_time(value)):
            raise CheckpointError(
                f"{path} has the expression {value!r}, which may take endless time; change it, or don't use the model"
            )
        if isinstance(value, int) and abs(value) > LARGEST_ID:
            raise CheckpointError(f"{path}: {name} is {value}, more than any tokenizer has; don't use the model")


def _entries(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """All entries of nested objects and lists; those of a list have the list's name."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else ((name, part) for part in value):
            yield key, part
            yield from _entries(part, key)
