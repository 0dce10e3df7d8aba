"""Damaged pictures and arrays by the thousand: `python tests/io/fuzz_pictures.py --count 20000 --seed 0`.

Each is read in every way. Anything but pixels, or one of our errors in one line, is a failure; the seed and number of a
file reproduce it.
"""

import argparse
import io
import logging
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import tifffile
from fuzz import cut, flip, huge, repeat, swap
from PIL import Image

from latentdiff.errors import LatentDiffError
from latentdiff.io.arrays import count_channels, read_values, size_of
from latentdiff.io.generated import read_parameters, write_image
from latentdiff.io.images import load_image
from latentdiff.io.inputs import read_mask
from latentdiff.io.label_maps import read_label_map

MUTATIONS = (flip, cut, swap, repeat, huge)
READERS = (
    load_image,
    size_of,
    count_channels,
    lambda path: read_values(path, 1, (0, 100)),
    lambda path: read_values(path, 5),
    read_mask,
    lambda path: read_label_map(path, 9, palette=[(0, 0, 0), (255, 255, 255)]),
    read_parameters,
)


def seeds(folder):
    """Small whole files of every form."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 10, 5), dtype=np.uint8)
    colour, grey, exif = Image.fromarray(pixels[..., :3]), pixels[..., 0], Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"):
        options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
        yield saved(lambda file, kind=kind, options=options: colour.save(file, kind, **options))
    yield saved(lambda file: colour.save(file, "TIFF", compression="tiff_lzw"))
    yield saved(lambda file: Image.fromarray(pixels[..., :4]).save(file, "PNG"))
    yield saved(lambda file: Image.fromarray(grey.astype(np.uint16)).save(file, "PNG", transparency=40))
    for values, options in (
        (grey.astype(np.uint16), {"photometric": "miniswhite"}),
        (grey.astype(np.uint32) << 24, {}),
        (grey / 255, {}),
        (pixels, {"planarconfig": "contig"}),
        (pixels, {"planarconfig": "contig", "tile": (16, 16)}),
    ):
        how = {"photometric": "minisblack", **options}
        yield saved(lambda file, values=values, how=how: tifffile.imwrite(file, values, **how))
    for values in (pixels / np.float32(255), np.asfortranarray(pixels.astype(np.uint16))):
        yield saved(lambda file, values=values: np.save(file, values))
    for suffix in ("png", "jpg", "webp"):
        write_image(colour, folder / f"a.{suffix}", {"prompt": "a dog", "seed": 1})
        yield (folder / f"a.{suffix}").read_bytes()


def saved(write):
    """The bytes that a function writes into a file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    warnings.simplefilter("error")
    logging.disable()  # tifffile tells of each damage
    results, began = {"read": 0, "refused": 0}, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        whole, path = list(seeds(Path(folder))), Path(folder, "picture")
        for number in range(options.count):
            rng = random.Random(f"{options.seed} {number}")
            data = rng.choice(whole)
            for _ in range(rng.choice((1, 1, 2, 3))):
                data = rng.choice(MUTATIONS)(data, rng) or b"x"
            path.write_bytes(data)
            for read in READERS:
                try:
                    read(path)
                    results["read"] += 1
                except LatentDiffError as error:
                    assert "\n" not in str(error)
                    results["refused"] += 1
                except BaseException:
                    print(f"file {number} of seed {options.seed}:", file=sys.stderr)
                    raise
    print(f"{options.count} files: {results}, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
