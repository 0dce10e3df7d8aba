"""A damaged `.npy` is a bad file like any other, whatever is wrong with it."""

import numpy as np
import pytest

from latentdiff.errors import BadFileError
from latentdiff.io.arrays import count_channels, read_values, size_of

VALUES = np.random.default_rng(0).integers(0, 255, (8, 8, 4), dtype=np.uint8)


def header(text):
    body = text.encode("latin-1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(100),
        header("{"),
        header("(" * 100),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8, 4), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000, 1000), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': (-8, 8), }"),
        header("{'descr': '|u1', 'fortran_order': False, 'shape': 8, }"),
        header("{'descr': 'what', 'fortran_order': False, 'shape': (8, 8), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (8, 8), }"),
        header("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1, 1), }") + b"a",
        header("__import__('os').system('true')"),
    ],
    ids=lambda content: repr(content[6:60]),
)
def test_headers(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    for read in (lambda path: read_values(path, 4), count_channels, size_of):
        with pytest.raises(BadFileError) as caught:
            read(tmp_path / "a.npy")
        assert "a.npy" in str(caught.value) and "\n" not in str(caught.value)


def test_every_length_and_every_byte(tmp_path):
    """Cut off anywhere, and with any byte of the header changed, it is read or it is a bad file."""
    np.save(tmp_path / "a.npy", VALUES)
    whole = (tmp_path / "a.npy").read_bytes()
    rng = np.random.default_rng(1)
    damaged = [whole[:length] for length in range(len(whole))]
    for place in range(len(whole) - VALUES.nbytes):
        for value in rng.integers(0, 256, 4).tolist():
            damaged.append(whole[:place] + bytes([value]) + whole[place + 1 :])
    read = 0
    for content in damaged:
        (tmp_path / "a.npy").write_bytes(content)
        try:
            read_values(tmp_path / "a.npy", 4)
            read += 1
        except BadFileError:
            pass
    assert 0 < read < len(damaged) / 2
