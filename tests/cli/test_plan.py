import pytest

from latentdiff.cli.batch.plan import choose_seeds, slug
from latentdiff.cli.commands.generate import read_prompts
from latentdiff.errors import InputError
from latentdiff.seeding import MAX_SEED


@pytest.mark.parametrize(
    ("text", "num_images", "seeds"),
    [
        ("7", None, [7]),
        ("7", 3, [7, 8, 9]),
        ("0-3", None, [0, 1, 2, 3]),
        ("5-5", None, [5]),
        (str(MAX_SEED), None, [MAX_SEED]),
    ],
)
def test_seeds(text, num_images, seeds):
    assert list(choose_seeds(text, num_images)) == seeds


def test_a_random_seed_differs_each_time():
    assert choose_seeds(None, None) != choose_seeds(None, None)
    assert len(choose_seeds(None, 3)) == 3


@pytest.mark.parametrize(
    ("text", "num_images", "message"),
    [
        ("seven", None, "an integer such as 7 or a range such as 0-7"),
        ("-1", None, "an integer such as 7"),
        ("1.5", None, "an integer such as 7"),
        ("1-2-3", None, "an integer such as 7"),
        ("٣", None, "an integer such as 7"),
        ("", None, "an integer such as 7"),
        ("3-1", None, "ends before it begins"),
        ("0-3", 2, "--num-images 2 and the seeds 0-3 are both given"),
        (str(MAX_SEED + 1), None, "from 0 to"),
        (str(MAX_SEED), 2, "from 0 to"),
        (f"0-{MAX_SEED + 1}", None, "from 0 to"),
        ("9" * 5000, None, "an integer such as 7"),
    ],
)
def test_wrong_seeds(text, num_images, message):
    with pytest.raises(InputError, match=message):
        choose_seeds(text, num_images)


def test_prompts_of_a_file(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff a red apple \r\n\n# a comment\n  # another\nein Äpfelchen\n".encode())
    assert read_prompts([], str(path)) == ["a red apple", "ein Äpfelchen"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red apple!", "a-red-apple"),
        ("  ../../etc/passwd ", "etc-passwd"),
        ("ein Äpfelchen, 日本", "ein-äpfelchen-日本"),
        ("🍎", "image"),
        ("a" * 39 + " bc", "a" * 39),
    ],
)
def test_slug(prompt, name):
    assert slug(prompt) == name
