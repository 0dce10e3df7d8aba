import csv
import io
import json

import pytest
from small_studies import NAMES

from latentdiff.study.report import as_csv, as_json, as_lines, as_markdown, report_study
from latentdiff.study.statistics import krippendorff_alpha, wilson
from latentdiff.study.store import open_store
from latentdiff.study.study import open_study

RANK = {"reference": 0, "intact": 0, "a": 1, "b": 2, "degraded": 3}  # what attentive participants prefer


def attentive(pair):
    return "left" if RANK[pair.left] < RANK[pair.right] else "right"


def on_the_left(pair):
    return "left"


@pytest.fixture
def whole(folders):
    """A study of which everybody sees all 18 pairs and two checks."""
    return open_study(folders.ours, folders.theirs, folders.truth, checks=2)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


def take_part(store, study, clock, choose, count=None, seconds=4.0):
    """Answer the pairs, all or the first ones; the participant's number."""
    number = store.participant(store.join())
    for position, pair in enumerate(study.pairs(number)[:count]):
        store.show(number, position)
        clock.now += seconds
        store.answer(number, position, choose(pair))
    return number


def test_a_study_without_answers(path, whole):
    with open_store(path, whole):
        pass
    report = report_study(path)
    assert [(row.share, row.low, row.high, row.alpha, row.median_seconds) for row in report.preferences] == [
        (None, 0, 1, None, None)
    ] * 3
    assert (report.participants, report.left_share) == (0, None)
    assert len(list(as_lines(report))) == 1 + 3 + 3


def test_shares_are_those_of_the_first_over_the_second(path, whole, clock):
    with open_store(path, whole, clock) as store:
        take_part(store, whole, clock, attentive)
        take_part(store, whole, clock, attentive, seconds=8.0)
        report = report_study(path)  # while the server is at work
    rows = [(row.task, row.first, row.second, row.chosen, row.answers, row.share) for row in report.preferences]
    assert rows == [
        (1, "ours", "truth", 0, 12, 0.0),
        (1, "theirs", "truth", 0, 12, 0.0),
        (2, "ours", "theirs", 12, 12, 1.0),
    ]
    assert [(row.low, row.high) for row in report.preferences] == [wilson(0, 12), wilson(0, 12), wilson(12, 12)]
    assert [row.median_seconds for row in report.preferences] == [6.0] * 3
    assert (report.participants, report.finished, report.checks_answered, report.checks_failed) == (2, 2, 4, 0)


def test_numbers_are_those_of_the_answers(path, whole, clock):
    with open_store(path, whole, clock) as store:
        for choose in (attentive, attentive, on_the_left):
            take_part(store, whole, clock, choose)
    report = report_study(path, everyone=True)
    sees = whole.pairs(2)
    for row, roles in zip(report.preferences, [("a", "reference"), ("b", "reference"), ("a", "b")], strict=True):
        of_roles = {pair.name: pair.left for pair in sees if {pair.left, pair.right} == {*roles}}
        third = [of_roles[name] for name in NAMES]
        better = min(roles, key=RANK.get)
        assert row.chosen == 12 * (better == roles[0]) + third.count(roles[0])
        assert row.alpha == krippendorff_alpha([better, better, chosen] for chosen in third)
    lefts = sum(attentive(pair) == "left" for number in (0, 1) for pair in whole.pairs(number) if not check(pair))
    assert report.left_share == (lefts + 18) / 54


def check(pair):
    return "intact" in (pair.left, pair.right)


def wrong_on(count):
    """Chooses wrongly in so many attention checks."""
    left = [count]

    def choose(pair):
        if check(pair) and left[0]:
            left[0] -= 1
            return "left" if pair.left == "degraded" else "right"
        return attentive(pair)

    return choose


@pytest.mark.parametrize(("allowed", "left_out"), [(0, 2), (1, 1), (2, 0)])
def test_who_fails_attention_checks_is_left_out(path, whole, clock, allowed, left_out):
    with open_store(path, whole, clock) as store:
        for count in (0, 1, 2):
            take_part(store, whole, clock, wrong_on(count))
    report = report_study(path, wrong_checks_allowed=allowed)
    assert (report.failed, report.left_out) == (left_out, left_out)
    assert [row.answers for row in report.preferences] == [6 * (3 - left_out)] * 3
    told = f"{left_out} of 3 participants ({left_out / 3:.0%}) failed more than {allowed}, left out"
    assert told in "\n".join(as_lines(report))
    every = report_study(path, wrong_checks_allowed=allowed, everyone=True)
    assert (every.failed, every.left_out) == (left_out, 0)
    assert [row.answers for row in every.preferences] == [18] * 3
    told = "counted all the same" if left_out else "left out"
    assert f"failed more than {allowed}, {told}" in "\n".join(as_lines(every))


def test_who_stopped_early_counts_with_what_was_answered(path, whole, clock):
    with open_store(path, whole, clock) as store:
        number = take_part(store, whole, clock, attentive, count=5)
        store.show(number, 5)  # and no answer
    report = report_study(path)
    answered = whole.pairs(number)[:5]
    assert (report.participants, report.finished) == (1, 0)
    assert sum(row.answers for row in report.preferences) == sum(not check(pair) for pair in answered)


def test_a_study_of_two_folders_has_one_number(path, folders, clock):
    study = open_study(folders.ours, folders.theirs, checks=0)
    with open_store(path, study, clock) as store:
        take_part(store, study, clock, attentive)
    report = report_study(path)
    assert [(row.task, row.share) for row in report.preferences] == [(2, 1.0)]
    assert "attention checks: none in this study" in list(as_lines(report))


def test_forms(path, whole, clock):
    with open_store(path, whole, clock) as store:
        store.invite(3)
        (invitation, *_) = store.invite(0)
        number = store.participant(invitation.token)
        for position, pair in enumerate(whole.pairs(number)):
            store.show(number, position)
            clock.now += 4
            store.answer(number, position, attentive(pair))
    report = report_study(path)
    lines = list(as_lines(report))
    assert " ".join(lines[0].split()) == "task preferred over share 95% interval answers alpha median time"
    assert " ".join(lines[3].split()) == "2 ours theirs 100.0% 61.0% to 100.0% 6 - 4.0 s"
    assert "participants: 1 of 3 invited, 1 with all answers" in lines
    markdown = as_markdown(report).splitlines()
    assert markdown[4] == "| 2 | ours | theirs | 100.0% | 61.0% to 100.0% | 6 | - | 4.0 s |"
    content = json.loads(json.dumps(as_json(report)))
    assert content["preferences"][2]["share"] == 1.0
    assert content["facts"]["question"] == "Which of the two images looks better?"
    assert (content["confidence"], content["invitations"], "answers" in content) == (0.95, 3, False)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == 18
    expected = [pair for pair in whole.pairs(0) if not check(pair)]
    assert [(row["image"], row["left"], row["right"]) for row in rows] == [
        (pair.name, pair.left, pair.right) for pair in expected
    ]
    assert {row["seconds"] for row in rows} == {"4.0"}
