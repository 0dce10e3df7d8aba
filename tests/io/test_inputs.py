"""A file, an image, an array and a tensor of the same pixels are the same input; what is none is one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from latentdiff.errors import InputError
from latentdiff.io.inputs import read_image, read_images, read_mask, read_masks

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
RGBA = np.random.default_rng(1).integers(0, 256, (4, 6, 4), dtype=np.uint8)
GREY = PIXELS[..., 0]


def forms(tmp_path, array):
    """The same pixels in all forms of 8 bits."""
    Image.fromarray(array).save(tmp_path / "a.png")
    tensor = torch.from_numpy(array)
    tensor = tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor
    return [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array), array, array[::-1][::-1], tensor]


@pytest.mark.parametrize("array", [PIXELS, RGBA, GREY], ids=["rgb", "rgba", "grey"])
def test_all_forms_of_an_image_are_equal(tmp_path, array):
    first, *others = [read_image(form) for form in forms(tmp_path, array)]
    assert first.shape == (3, 4, 6) and first.dtype == torch.float32 and -1 <= first.min() < first.max() <= 1
    assert all(torch.equal(first, other) for other in others)
    if array is not RGBA:
        back = ((first + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        assert np.array_equal(back, array if array.ndim == 3 else np.repeat(array[..., None], 3, -1))


@pytest.mark.parametrize("array", [PIXELS, RGBA, GREY, GREY[..., None]], ids=["rgb", "rgba", "grey", "one channel"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_of_a_unit_range(array, dtype):
    unit = (array / 255).astype(dtype)
    tensor = torch.from_numpy(unit)
    tensor = tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor
    expected = read_image(array)
    # Half a grey level where transparency was rounded, else the dtype's own rounding of numbers up to 1, doubled.
    tolerance = 2 * (0.5 / 255 if array is RGBA else 0) + 2 * 2.0 ** (-11 if dtype == "float16" else -23)
    for form in (unit, tensor):
        assert (read_image(form) - expected).abs().max() <= tolerance


def test_an_input_is_never_changed():
    given = torch.full((3, 2, 2), 0.75)
    read_image(given), read_mask(given[:1])
    assert (given == 0.75).all()
    array = np.full((2, 2), 0.75, np.float32)
    read_image(array), read_mask(array)
    assert (array == 0.75).all()


def test_batches():
    stacked = np.stack([PIXELS, PIXELS[::-1]])
    expected = torch.stack([read_image(PIXELS), read_image(PIXELS[::-1])])
    for batch in (stacked, list(stacked), tuple(stacked), torch.from_numpy(stacked).permute(0, 3, 1, 2)):
        assert torch.equal(read_images(batch), expected)
    mixed = read_images([Image.fromarray(PIXELS), stacked[1] / 255])
    assert (mixed - expected).abs().max() <= 2.0**-22
    assert read_images(PIXELS).shape == (1, 3, 4, 6)
    assert read_masks([GREY, GREY > 9], size=(4, 6)).shape == (2, 1, 4, 6)
    assert read_masks(np.zeros((5, 4, 6, 1), bool)).shape == (5, 1, 4, 6)


def test_a_mask_begins_at_half():
    """The original's convention: 0.5 and above is a hole; of 8 bits that is 128."""
    assert read_mask(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[[False, False, True, True]]]
    assert read_mask(torch.tensor([[0.0, 0.4999, 0.5, 1.0]])).tolist() == [[[False, False, True, True]]]
    assert read_mask(np.array([[True, False]])).tolist() == [[[True, False]]]


def test_all_forms_of_a_mask_are_equal(tmp_path):
    expected = torch.from_numpy(GREY >= 128)[None]
    coloured = Image.fromarray(np.where(GREY >= 128, 1, 0).astype(np.uint8), "P")
    coloured.putpalette([0, 0, 0, 255, 255, 255])
    bits = Image.fromarray(GREY >= 128)
    for form in [*forms(tmp_path, GREY), coloured, bits, GREY[..., None], torch.from_numpy(GREY)[None], GREY / 255]:
        found = read_mask(form, size=(4, 6))
        assert found.dtype == torch.bool and torch.equal(found, expected)


BAD_IMAGES = {
    "is of the type int; give a path": 3,
    "is of the type NoneType": None,
    "is of the type list": [[1, 2], [3, 4]],
    r"has the shape \(3, 4, 6\); allowed: \(H, W\) or \(H, W, 1\) or \(H, W, 3\)": np.zeros((3, 4, 6), np.uint8),
    r"has the shape \(5, 6, 3\); allowed: \(H, W\) or \(1, H, W\)": torch.zeros(5, 6, 3),
    r"has the shape \(0, 6, 3\)": np.zeros((0, 6, 3), np.uint8),
    r"has the shape \(3,\)": torch.zeros(3),
    "is an array of int64; give uint8": np.zeros((4, 6, 3), int),
    "is an array of int32": np.zeros((4, 6, 3), np.int32),
    "is an array of complex64": np.zeros((4, 6, 3), np.complex64),
    "is an array of object": np.array([[None]]),
    "is of torch.int64": torch.zeros(3, 4, 6, dtype=torch.int64),
    "is of torch.bool": torch.zeros(3, 4, 6, dtype=torch.bool),
    r"from -1 to 0.5; floats must be in \[0, 1\]; map \[-1, 1\] by": torch.tensor([[-1.0, 0.5]]),
    r"from 0 to 255; floats must be in \[0, 1\]$": torch.tensor([[0.0, 255]]),
    "from nan to nan": np.array([[np.nan, 0]]),
    "from 0 to inf": np.array([[np.inf, 0]]),
    "has 0x3 pixels": Image.new("RGB", (0, 3)),
}


@pytest.mark.parametrize("message", BAD_IMAGES)
def test_bad_images(message):
    with pytest.raises(InputError, match=f"^low_res .*{message}"):
        read_image(BAD_IMAGES[message], name="low_res")


def test_bad_files_and_batches(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png is not an image"):
        read_images([PIXELS, tmp_path / "a.png"])
    with pytest.raises(InputError, match="image is empty; give at least one"):
        read_images([])
    with pytest.raises(InputError, match="image: one is 6x4 pixels, another 6x3; give equal sizes"):
        read_images([PIXELS, PIXELS[:3]])
    with pytest.raises(InputError, match="image 1 is of the type float"):
        read_images([PIXELS, 0.5])
    with pytest.raises(InputError, match="image 0 has the shape"):
        read_images(torch.zeros(2, 5, 4, 6))


def test_bad_masks(tmp_path):
    with pytest.raises(InputError, match="mask is 6x4 pixels, the image 4x6; give a mask of the image's size"):
        read_mask(GREY, size=(6, 4))
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "ones.png")
    for ones in (np.eye(4, dtype=np.uint8), tmp_path / "ones.png"):
        with pytest.raises(InputError, match="no value above 1 where 255 is white, so it has no hole; make what is to"):
            read_mask(ones)
    Image.fromarray(np.eye(4, dtype=np.uint16)).save(tmp_path / "deep.png")
    for ones in (np.eye(4, dtype=np.uint16), tmp_path / "deep.png"):
        with pytest.raises(InputError, match="no value above 1 where 65535 is white"):
            read_mask(ones)
    assert read_mask(np.full((1, 1), 65535, np.uint16)).all() and not read_mask(np.zeros((2, 2), np.uint16)).any()
    assert not read_mask(np.zeros((2, 2), np.uint8)).any()
    with pytest.raises(InputError, match=r"mask has the shape \(4, 6, 3\); allowed: \(H, W\) or \(H, W, 1\)"):
        read_mask(PIXELS)
    with pytest.raises(InputError, match=r"mask is of torch\.int64"):
        read_mask(torch.ones(1, 4, 6, dtype=torch.int64))
    with pytest.raises(InputError, match=r"mask .*missing\.png cannot be read"):
        read_mask(tmp_path / "missing.png")
    with pytest.raises(InputError, match="mask 1 is 3x4 pixels, the image 6x4"):
        read_masks([GREY, GREY[:, :3]], size=(4, 6))


def in_colour(*colour):
    """An indexed mask, as annotation tools save it: one object in a colour, on black."""
    image = Image.fromarray(np.eye(4, dtype=np.uint8), "P")
    image.putpalette([0, 0, 0, *colour])
    return image


DARK_MASKS = {
    "red paint": (Image.fromarray(np.eye(4, dtype=np.uint8)[..., None] * np.array([255, 0, 0], np.uint8)), 76),
    "the first colour of VOC": (in_colour(128, 0, 0), 38),
    "the number of a class": (Image.fromarray(np.eye(4, dtype=np.uint8) * 2), 2),
    "just below a half": (Image.fromarray(np.eye(4, dtype=np.uint8) * 127), 127),
    "eight bits in sixteen": (Image.fromarray(np.eye(4, dtype=np.uint16) * 255), 255),
    "floats": (np.eye(4, dtype=np.float32) * 0.25, 0.25),
    "an array of sixteen bits": (np.eye(4, dtype=np.uint16) * 255, 255),
}


@pytest.mark.parametrize("name", DARK_MASKS)
def test_a_mask_whose_paint_is_too_dark_for_a_hole_is_refused(tmp_path, name):
    mask, most = DARK_MASKS[name]
    forms = [mask]
    if isinstance(mask, Image.Image):
        mask.save(tmp_path / "mask.png")
        forms.append(tmp_path / "mask.png")
    for form in forms:
        with pytest.raises(InputError, match=f"no value above {most} where .* is white"):
            read_mask(form)


@pytest.mark.parametrize("mask", [in_colour(255, 255, 255), in_colour(0, 255, 0), np.eye(4, dtype=np.uint8) * 128])
def test_a_mask_of_bright_paint_is_read(mask):
    assert torch.equal(read_mask(mask), torch.eye(4, dtype=torch.bool)[None])


WHITE, BLACK, CLEAR = (255, 255, 255, 255), (0, 0, 0, 255), (0, 0, 0, 0)
SQUARE = (8, 8, 24, 24)
HOLES = torch.zeros(1, 32, 32, dtype=torch.bool)
HOLES[:, 8:24, 8:24] = True


def painted(ground, paint, square=SQUARE):
    mask = Image.new("RGBA", (32, 32), ground)
    mask.paste(paint, square)
    return mask


def grey_with(transparency, ground, paint):
    """A grey mask in a PNG, of which one grey value is transparent, as it comes back from the file."""
    mask = Image.new("L", (32, 32), ground)
    mask.paste(paint, SQUARE)
    mask.info["transparency"] = transparency
    return mask


def indexed(mask):
    """The same in an indexed image whose index 0 is transparent."""
    values = (np.asarray(mask)[..., 3] > 0).astype(np.uint8)
    image = Image.fromarray(values, "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.info["transparency"] = 0
    return image


def deep(mask):
    """Sixteen bits, of which one value is transparent."""
    image = Image.fromarray(np.where(np.asarray(mask)[..., 3] > 0, 65535, 700).astype(np.uint16))
    image.info["transparency"] = 700
    return image


def soft():
    """White paint of a soft brush: its opacity falls off, its colour is white."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[7:25, 7:25] = 100
    alpha[8:24, 8:24] = 200
    return Image.fromarray(np.dstack([np.full((32, 32, 3), 255, np.uint8), alpha]))


LAYER = painted(CLEAR, WHITE)
READ_MASKS = {
    "white paint on a transparent layer": LAYER,
    "white paint on transparent white": painted((255, 255, 255, 0), WHITE),
    "grey and opacity": LAYER.convert("LA"),
    "indexed with a transparent index": indexed(LAYER),
    "grey with a transparent value": grey_with(0, 0, 255),
    "sixteen bits with a transparent value": deep(LAYER),
    "a soft brush": soft(),
    "all opaque": painted(BLACK, WHITE),
    "white paint, corrected in black": painted(CLEAR, BLACK, (0, 0, 8, 8)),
}
READ_MASKS["white paint, corrected in black"].paste(WHITE, SQUARE)


@pytest.mark.parametrize("name", READ_MASKS)
def test_of_a_mask_with_transparency_what_is_painted_counts(tmp_path, name):
    mask = READ_MASKS[name]
    mask.save(tmp_path / "mask.png", **({"transparency": mask.info["transparency"]} if mask.info else {}))
    for form in (mask, tmp_path / "mask.png"):
        assert torch.equal(read_mask(form), HOLES)


PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).convert("RGBA")
ERASED = PHOTO.copy()
ERASED.paste(CLEAR, SQUARE)
AMBIGUOUS_MASKS = {
    "a photo from which the hole is erased": ERASED,
    "a photo of which a square is left": Image.composite(PHOTO, Image.new("RGBA", (32, 32)), LAYER.getchannel("A")),
    "a white sheet from which the hole is erased": painted(WHITE, CLEAR),
    "a black sheet from which the hole is erased": painted(BLACK, CLEAR),
    "black paint on a transparent layer": painted(CLEAR, BLACK),
    "red paint on a transparent layer": painted(CLEAR, (255, 0, 0, 255)),
    "a grey value that is transparent where it is white": grey_with(255, 0, 255),
    "nothing painted": Image.new("RGBA", (32, 32)),
    "half opaque everywhere": Image.new("RGBA", (32, 32), (255, 255, 255, 200)),
}


@pytest.mark.parametrize("name", AMBIGUOUS_MASKS)
def test_a_mask_whose_transparency_has_two_readings_is_refused(tmp_path, name):
    mask = AMBIGUOUS_MASKS[name]
    mask.save(tmp_path / "mask.png", **({"transparency": mask.info["transparency"]} if mask.info else {}))
    for form in (mask, tmp_path / "mask.png"):
        with pytest.raises(InputError, match="it isn't clear what is to be filled; give it without transparency"):
            read_mask(form)
