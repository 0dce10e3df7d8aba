from collections import Counter

import pytest

from latentdiff.study.plan import DEGRADED, INTACT, Pair, Plan

NAMES = [f"image {number}" for number in range(7)]
COMPARISONS = [("a", "b"), ("a", "reference"), ("b", "reference")]
PLAN = Plan(NAMES, COMPARISONS, NAMES[:2], count=6, seed=0)


def seen(pairs):
    return [(pair.name, frozenset((pair.left, pair.right))) for pair in pairs]


def asked(plan, participant):
    return [pair for pair in plan.pairs(participant) if INTACT not in (pair.left, pair.right)]


@pytest.mark.parametrize(("count", "participants"), [(6, 7), (7, 3), (21, 2), (20, 21)])
def test_each_pair_is_shown_equally_often(count, participants):
    plan = Plan(NAMES, COMPARISONS, [], count, seed=3)
    shown = Counter(pair for participant in range(participants) for pair in seen(plan.pairs(participant)))
    assert len(shown) == plan.total() == 21
    assert set(shown.values()) == {count * participants // 21}


@pytest.mark.parametrize("participant", range(5))
def test_no_image_comes_twice_before_all_have_come_once(participant):
    assert max(Counter(pair.name for pair in asked(PLAN, participant)).values()) == 1


def test_one_pair_more_than_there_are_images_repeats_one():
    plan = Plan(NAMES, COMPARISONS, [], count=8, seed=0)
    assert sorted(Counter(pair.name for pair in plan.pairs(0)).values()) == [1] * 6 + [2]


@pytest.mark.parametrize("participant", range(5))
def test_an_image_comes_again_only_after_all_others(participant):
    names = [pair.name for pair in asked(Plan(NAMES, COMPARISONS, NAMES[:2], count=17, seed=0), participant)]
    assert [len(set(names[start : start + 7])) for start in (0, 7, 14)] == [7, 7, 3]
    assert names[:7] != names[7:14]


def test_comparisons_take_turns():
    assert Counter(roles for _, roles in seen(asked(PLAN, 0))) == {frozenset(roles): 2 for roles in COMPARISONS}


def test_order_and_sides_are_of_the_seed_and_the_participant():
    whole = Plan(NAMES, COMPARISONS, [], count=21, seed=0)
    assert whole.pairs(0) == Plan(list(NAMES), COMPARISONS, [], count=21, seed=0).pairs(0)
    for other in (whole.pairs(1), Plan(NAMES, COMPARISONS, [], count=21, seed=1).pairs(0)):
        assert sorted(map(repr, seen(other))) != seen(other)
        assert set(seen(other)) == set(seen(whole.pairs(0)))
        assert seen(other) != seen(whole.pairs(0))
        left = {(pair.name, frozenset((pair.left, pair.right))): pair.left for pair in whole.pairs(0)}
        assert any(left[key] != pair.left for key, pair in zip(seen(other), other, strict=True))


def test_a_plan_never_changes_with_versions_of_python_or_libraries():
    plan = Plan(["x", "y"], [("a", "b")], ["x"], count=2, seed=0)
    assert plan.pairs(0) == [Pair("y", "b", "a"), Pair("x", "b", "a"), Pair("x", DEGRADED, INTACT)]


def test_no_side_is_favoured():
    plan = Plan(NAMES, COMPARISONS, [], count=21, seed=0)
    first = [pair.left < pair.right for participant in range(100) for pair in plan.pairs(participant)]
    assert 0.48 < sum(first) / len(first) < 0.52


def test_attention_checks_are_mixed_in():
    places = set()
    for participant in range(30):
        pairs = PLAN.pairs(participant)
        checks = [pair for pair in pairs if INTACT in (pair.left, pair.right)]
        assert [pair.name for pair in sorted(checks, key=lambda pair: pair.name)] == NAMES[:2]
        assert {frozenset((pair.left, pair.right)) for pair in checks} == {frozenset((INTACT, DEGRADED))}
        places.update(pairs.index(pair) for pair in checks)
    assert places == set(range(8))


def test_a_swapped_pair_is_the_same_pair():
    assert Pair("x", "a", "b").swapped() == Pair("x", "b", "a")
