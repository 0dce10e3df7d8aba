"""The captions of a data set as token ids; those that a text encoder can't take are found, with their images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from latentdiff.data.images import Images
from latentdiff.errors import InputError, LatentDiffWarning
from latentdiff.pipelines.prompts import check_prompt, tokenize
from latentdiff.training.diffusion.conditioners.options import Unfit
from latentdiff.types import Tokenizer

AT_ONCE = 1024  # captions that are tokenised together
SHOWN_CHARACTERS = 60  # characters of a caption in a message
Part = tuple[int, int, str]
"""A caption: the number of its image, its place among that image's captions, and its text."""


@dataclass
class Captions:
    """The captions of a data set.

    Attributes:
        ids: Token ids (N, L) of all captions that are used, image after image.
        counts: The number of captions of each image.
        missing: Why an image has none that can be used, by its number.
    """

    ids: torch.Tensor
    counts: list[int]
    missing: dict[int, str] = field(default_factory=dict)


@dataclass
class UnfitCaption:
    """A caption that a text encoder can't take whole.

    Attributes:
        image: The number of its image.
        place: Its place among the image's captions.
        reason: What is wrong with it.
        long: Whether it is too long and nothing else, so that it can be cut.
    """

    image: int
    place: int
    reason: str
    long: bool


def captions_of(images: Images) -> list[list[str]]:
    """The captions of each image.

    Raises:
        InputError: If the images have none.
    """
    if images.captions is None:
        raise InputError(
            f"{images.root} has no captions; give 'text' in metadata.jsonl, a .txt file beside each image, or a file "
            f"of annotations{images.hint('caption_column')}"
        )
    return [text if isinstance(text, list) else [text] for text in images.captions]


def find_unfit(images: Images, tokenizer: Tokenizer, max_length: int) -> list[UnfitCaption]:
    """The captions that a text encoder can't take: too long, without a word that it knows, or no text.

    Raises:
        InputError: If the images have no captions.
    """
    parts = _read(captions_of(images), tokenizer, max_length)
    return [item for _, _, unfit in parts for item in unfit.values()]


def tokenize_captions(images: Images, tokenizer: Tokenizer, max_length: int, policy: Unfit) -> Captions:
    """The token ids of the images' captions.

    Args:
        images: The images.
        tokenizer: The text encoder's tokenizer.
        max_length: The number of tokens that the text encoder takes.
        policy: What is done with captions that it can't take: "refuse" raises, "cut" cuts those that are too long and
            leaves out others, "leave_out" leaves all of them out.

    Raises:
        InputError: If the images have no captions, or one doesn't fit and is refused; the message names its image.
    """
    captions = captions_of(images)
    counts, ids, unfit = [0] * len(captions), list[torch.Tensor](), dict[tuple[int, int], UnfitCaption]()
    for chunk, found, wrong in _read(captions, tokenizer, max_length):
        unfit |= wrong
        kept = [part for part in chunk if _stays(wrong.get(part[:2]), policy)]
        for image, _, _ in kept:
            counts[image] += 1
        if found is not None or kept:
            ids.append(_cut(tokenizer, kept, max_length) if found is None else found.to(torch.int32))
    if unfit:
        line = summary(images, list(unfit.values()))
        if policy == "refuse":
            raise InputError(f"{line}; correct them, or let conditioning.unfit_captions be cut or leave_out")
        done = "those that are too long are cut, others left out" if policy == "cut" else "left out"
        warnings.warn(LatentDiffWarning(f"{line}; {done}"), stacklevel=2)
    missing = {
        image: f"{images.records.name_of(image)} has no caption that fits: it {unfit[image, 0].reason}"
        for image, count in enumerate(counts)
        if not count
    }
    if not ids:
        raise InputError(f"{images.root}: no caption fits the text encoder; {missing[0]}")
    return Captions(torch.cat(ids), counts, missing)


def _cut(tokenizer: Tokenizer, captions: Sequence[Part], max_length: int) -> torch.Tensor:
    """The token ids of captions, of which those that are too long are cut; of that, one line is said for all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentDiffWarning)
        texts = [text for _, _, text in captions]
        return tokenize(tokenizer, texts, max_length, truncate=True).to(torch.int32)


def _stays(unfit: UnfitCaption | None, policy: Unfit) -> bool:
    return unfit is None or (policy == "cut" and unfit.long)


def _read(
    captions: Sequence[Sequence[str]], tokenizer: Tokenizer, max_length: int
) -> Iterator[tuple[list[Part], torch.Tensor | None, dict[tuple[int, int], UnfitCaption]]]:
    """Captions, some at a time, with their token ids, or with those that don't fit if there are any."""
    for chunk in _chunks(captions):
        try:
            yield chunk, tokenize(tokenizer, [text for _, _, text in chunk], max_length), {}
        except (InputError, TypeError, ValueError):  # of a tokenizer, at what is no text
            found = {(image, place): _unfit(tokenizer, text, max_length, image, place) for image, place, text in chunk}
            yield chunk, None, {key: item for key, item in found.items() if item is not None}


def summary(images: Images, unfit: Sequence[UnfitCaption]) -> str:
    """How many captions don't fit, and the first of them with its image."""
    first, count = unfit[0], len(unfit)
    number = "1 caption does" if count == 1 else f"{count} captions do"
    return f"{number} not fit the text encoder; that of {images.records.name_of(first.image)} {first.reason}"


def _chunks(captions: Sequence[Sequence[str]]) -> Iterator[list[Part]]:
    """All captions, some at a time."""
    chunk: list[Part] = []
    for image, texts in enumerate(captions):
        chunk += [(image, place, text) for place, text in enumerate(texts)]
        if len(chunk) >= AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _unfit(tokenizer: Tokenizer, text: str, max_length: int, image: int, place: int) -> UnfitCaption | None:
    """What is wrong with a caption; None if it fits."""
    shown = repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
    try:
        check_prompt(text, name=f"is {shown}, which")
    except InputError as error:
        return UnfitCaption(image, place, str(error), long=False)
    try:
        tokenize(tokenizer, [text], max_length)
    except InputError:
        length = len(tokenizer([text])["input_ids"][0])
        if length > max_length:
            reason = f"is {shown}, which has {length} tokens where the text encoder takes {max_length}"
            return UnfitCaption(image, place, reason, long=True)
        return UnfitCaption(image, place, f"is {shown}, which has no word that the vocabulary knows", long=False)
    return None
