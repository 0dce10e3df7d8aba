"""All that the page of a study says, in one table; another language gives other texts under the same names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from latentdiff.errors import InputError, one_line
from latentdiff.reading import parse_json, read_text
from latentdiff.registry import nearest

TASKS: Mapping[str, bool] = {"general": False, "super-resolution": True, "inpainting": True}
"""What participants are asked about, and whether the question speaks of an image in the middle."""

ENGLISH: Mapping[str, str] = {
    "language": "en",
    "title": "Which image is better?",
    "question.general": "Which of the two images looks better?",
    "question.super-resolution": (  # this and the next are those of appendix E.3.6
        "Which of the two images is a better high quality version of the low resolution image in the middle?"
    ),
    "question.inpainting": (
        "Which of the two images contains more realistic inpainted regions of the image in the middle?"
    ),
    "welcome.title": "A study of images",
    "welcome.text": (
        "You will see {of} pairs of images, one after another. Look at both images of a pair for {look} s, then choose "
        "one. There is no time limit; most people need about {minutes} min in all."
    ),
    "welcome.question": "Each time, the question is:",
    "welcome.how": (
        "Choose with the left and right arrow keys, or click or touch an image. An answer can't be changed. You may "
        "close this page whenever you like; its address leads back to where you stopped."
    ),
    "welcome.privacy": "Your choices and their times are stored, and nothing else about you.",
    "welcome.start": "Start",
    "welcome.resume": "Go on",
    "welcome.resumed": "{done} of {of} answers are stored.",
    "welcome.other": "Start as somebody else",
    "pair.progress": "Pair {number} of {of}",
    "pair.loading": "The images are loading.",
    "pair.look": "Look at the images for {seconds} s.",
    "pair.choose": "Choose an image: ← or →, or touch it.",
    "pair.left": "Left image",
    "pair.middle": "Image in the middle",
    "pair.right": "Right image",
    "finished.title": "Thank you!",
    "finished.text": "All {of} answers are stored. You may close this page.",
    "problem.title": "This does not work",
    "problem.unknown": "This address belongs to no invitation. Please check that it is complete.",
    "problem.expired": "This invitation has expired. Please ask whoever sent it for a new one.",
    "problem.closed": "This study is open to invited people only. Please use the address of your invitation.",
    "problem.waiting": "The server can't be reached. Your answer is kept and sent again; please leave this page open.",
    "problem.storage": "The server can't store answers right now. Yours is kept and sent again in a moment.",
    "problem.image": "An image can't be shown. It is tried again; if that goes on, please tell whoever invited you.",
    "problem.script": "This page needs JavaScript, which is switched off.",
}


def read_texts(path: str | Path) -> Mapping[str, str]:
    """The table of texts with those of a JSON file in place of the English ones.

    Args:
        path: A file such as `{"language": "de", "welcome.start": "Anfangen"}`; what it lacks stays English.

    Raises:
        InputError: If it can't be read, is no object of texts, or has a name that the table doesn't have.
    """
    try:
        given = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} cannot be read as JSON ({reason}); give an object of texts") from None
    if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
        raise InputError(f'{path} is no JSON object of texts; give one such as {{"language": "de", ...}}')
    for name in given:
        if name not in ENGLISH:
            raise InputError(f"{path} has {name!r}, which is no text of the page; {nearest(name, ENGLISH)}")
    return {**ENGLISH, **given}
