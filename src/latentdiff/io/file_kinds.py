"""What a file is that was given for another: missing, a folder, a device, empty, or of another format.

Only regular files are opened: reading a pipe or a device may never end.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from pathlib import Path

from latentdiff.errors import CheckpointError

HEAD_BYTES = 1024
CHECKPOINT_SUFFIXES = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")

# The first bytes of formats that people have in place of a checkpoint, as patterns, and what they are.
FORMATS = (
    (rb"\x89PNG\r\n\x1a\n", "a PNG image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"RIFF....WEBP", "a WebP image"),
    (rb"RIFF....(AVI |WAVE)", "a video or sound"),
    (rb"BM.{4}\0\0\0\0.{4}[\x0c\x28\x6c\x7c]\0\0\0", "a BMP image"),
    (rb"II[*+]\0|MM\0[*+]", "a TIFF image"),
    (rb"8BPS", "a Photoshop image"),
    (rb"....ftyp(hei|hev|mif|msf|avi[fs])", "a HEIC or AVIF image"),
    (rb"....ftyp", "a video"),
    (rb"\x1aE\xdf\xa3", "a video"),
    (rb"\0\0\0\x0cjP  |\0\0\x01\0.{3}\0|\xff\n|\0\0\0\x0cJXL ", "an image"),
    (rb"%PDF-", "a PDF document"),
    (rb"\x1f\x8b\x08", "a gzip archive"),
    (rb"BZh[1-9]1AY&SY", "a bzip2 archive"),
    (rb"\xfd7zXZ\0", "an xz archive"),
    (rb"\x28\xb5\x2f\xfd", "a zstd archive"),
    (rb"\x04\x22\x4d\x18", "an lz4 archive"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (rb"Rar!\x1a\x07", "a RAR archive"),
    (rb".{257}ustar", "a tar archive, or a file of PyTorch before 0.1.10"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras has"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"GGUF", "a GGUF file, as llama.cpp has"),
    (rb"\x08.{1,3}\x12.{1,40}(pytorch|onnx)", "an ONNX model"),
    (rb"SQLite format 3\0", "a database"),
    (rb"\x7fELF|MZ.{58}", "a program"),
    (rb"version https://git-lfs\.github\.com/spec", "a pointer of Git LFS, in place of the file itself"),
    (rb"(\.\./)*(\.git/|/)annex/objects/", "a pointer of git-annex, in place of the file itself"),
    (rb"d\d+:(announce|info|created by)", "a torrent, in place of the file itself"),
)

# The same for text, whose first bytes may be blanks.
TEXT_FORMATS = (
    (
        rb"(<!--.*?-->\s*)?<(!doctype html|html|head|body|script|meta|title)\b",
        "a web page, such as a login or an error",
    ),
    (rb"<\?xml|<[a-z][\w:.-]*[\s/>]", "an XML document, perhaps an error of the server"),
    (rb"[{\[]", "JSON text, perhaps an error of the server"),
    (rb"(model|params|target|base_learning_rate):", "YAML, a configuration"),
)
ADVICE = {
    "archive": "unpack it, and give the checkpoint in it",
    "pointer": "fetch the file with git lfs pull, git annex get, or from its page",
    "torrent": "fetch the file that it stands for",
    "YAML": "give it as config, and the checkpoint first",
    "web page": "fetch the file again, signed in if its page asks for it",
    "server": "fetch the file again",
}
FETCH = "give a checkpoint (.ckpt or .safetensors)"


def check_regular_file(path: Path) -> None:
    """Check that there is a regular file at `path`, without opening it.

    Raises:
        CheckpointError: If there is nothing, with the nearest names; or a folder, a pipe or a device; or it is empty.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name has a null character"
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise CheckpointError(f"no such file: {path}; {near_names(path)}") from None
        raise CheckpointError(f"{path} cannot be read ({reason}); check its permissions") from None
    if stat.S_ISDIR(found.st_mode):
        raise CheckpointError(f"{path} is a folder, not a file; {FETCH} in it")
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is a pipe or a device, not a file; {FETCH}")
    if found.st_size == 0:
        raise CheckpointError(f"{path} is empty; fetch it again")


def refuse_other_formats(path: Path, head: bytes) -> None:
    """Refuse a file that begins as those of a known format do, none of which holds tensors that are read here.

    Args:
        path: The file.
        head: Its first `HEAD_BYTES` bytes.

    Raises:
        CheckpointError: If it is one; the message says which.
    """
    what = what_is(head)
    if what is not None:
        raise CheckpointError(f"{path} is {what}, not a checkpoint; {_advice(what) or FETCH}")


def other_file(head: bytes, *kinds: str) -> str | None:
    """What a file is that begins with `head`, with what to do about it, if that is one of the kinds; else None.

    Args:
        head: The first `HEAD_BYTES` bytes.
        kinds: Words of what is looked for, such as "pointer"; none of them for anything that is known.
    """
    what = what_is(head)
    if what is None or (kinds and not any(kind in what for kind in kinds)):
        return None
    return "; ".join(filter(None, [what, _advice(what)]))


def _advice(what: str) -> str | None:
    return next((advice for word, advice in ADVICE.items() if word in what), None)


def what_is(head: bytes) -> str | None:
    """What a file is that begins with `head`, in words; None if that is not known."""
    found = next((what for pattern, what in FORMATS if re.match(pattern, head, re.DOTALL)), None)
    if found is not None:
        return found
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", errors="ignore").encode("utf-8", errors="ignore")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = next((what for pattern, what in TEXT_FORMATS if re.match(pattern, text, re.DOTALL | re.IGNORECASE)), None)
    if found is None and text and re.fullmatch(rb"[\t\n\r\x20-\x7e]*", text):
        return "text"
    return found


def near_names(path: Path) -> str:
    """What to do about a path that leads nowhere: the nearest names in its folder."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f"there is no folder {path.parent}, give an existing path"
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else "give an existing path"
