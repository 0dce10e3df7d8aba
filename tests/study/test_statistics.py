import pytest

from latentdiff.study.statistics import krippendorff_alpha, wilson


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 20), (1, 20), (10, 20), (19, 20), (20, 20), (361, 997)]
)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_scipys(successes, trials, confidence):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert wilson(successes, trials, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_by_hand():
    # (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) of p = 0.8, n = 10, z = 1.96
    assert wilson(8, 10) == pytest.approx((0.49016, 0.94331), abs=1e-4)


def test_no_trials_say_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("trials", range(1, 60))
def test_the_share_is_within_its_interval(trials):
    for successes in range(trials + 1):
        low, high = wilson(successes, trials)
        assert 0 <= low <= successes / trials <= high <= 1


def units(*coders):
    """What each coder says, a character a unit, "." for nothing, as answers by unit."""
    return [[value for value in column if value != "."] for column in zip(*coders, strict=True)]


def test_alpha_is_that_of_krippendorffs_examples():
    """Examples A and C of Krippendorff, Computing Krippendorff's Alpha-Reliability (2011)."""
    assert krippendorff_alpha(units("0100000010", "1110010000")) == pytest.approx(0.095, abs=5e-4)
    incomplete = units("123321412...", "1233224125.3", ".3332342251.", "123324412511"[:11] + ".")
    assert krippendorff_alpha(incomplete) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize(
    ("answers", "alpha"),
    [
        ([["a", "a"], ["b", "b"]], 1.0),
        # observed: both units disagree, 1; expected: of 4 * 3 ordered pairs, 8 differ
        ([["a", "b"], ["a", "b"]], 1 - 1 / (8 / 12)),
        # the first unit's 3 answers have 4 of 6 ordered pairs that differ; of 5 * 4 in all, 12 do
        ([["a", "a", "b"], ["b", "b"]], 1 - (3 * 4 / 6 / 5) / (12 / 20)),
        ([["a", "a", "b"], ["b", "b"], ["a"]], 1 - (3 * 4 / 6 / 5) / (12 / 20)),
    ],
)
def test_alpha_by_hand(answers, alpha):
    assert krippendorff_alpha(answers) == pytest.approx(alpha)


@pytest.mark.parametrize("answers", [[], [[]], [["a"], ["b"]], [["a", "a"], ["a", "a"]]])
def test_alpha_is_undefined_without_two_answers_to_a_question_or_two_different_ones(answers):
    assert krippendorff_alpha(answers) is None
