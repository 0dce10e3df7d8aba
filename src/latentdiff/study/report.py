"""What a study has found, from its database alone; the server may be at work meanwhile."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from latentdiff.errors import InputError
from latentdiff.study.plan import INTACT, METHOD_A, METHOD_B, REFERENCE
from latentdiff.study.statistics import CONFIDENCE, krippendorff_alpha, wilson
from latentdiff.study.store import BUSY_SECONDS, read_facts
from latentdiff.study.study import Facts
from latentdiff.types import JSON

COMPARISONS = ((1, METHOD_A, REFERENCE), (1, METHOD_B, REFERENCE), (2, METHOD_A, METHOD_B))
"""The task of the paper, and whose preference over whom is given: a method's over the ground truth, A's over B."""


@dataclass(frozen=True)
class Answer:
    """An answer of the database.

    Attributes:
        participant: The participant's number.
        position: The place of the pair in the participant's order, from 0.
        image: The name of the image.
        left: The role of the image on the left.
        right: The role of the one on the right.
        chosen: The role that was chosen.
        seconds: The time from the first sight of the pair to the answer.
    """

    participant: int
    position: int
    image: str
    left: str
    right: str
    chosen: str
    seconds: float

    @property
    def is_check(self) -> bool:
        """Whether the pair is an attention check."""
        return INTACT in (self.left, self.right)


@dataclass(frozen=True)
class Preference:
    """How often one of two was preferred.

    Attributes:
        task: 1 for a method against the ground truth, 2 for two methods.
        first: The label of the one whose preference is given.
        second: The label of the other.
        chosen: How often the first was chosen.
        answers: How many answers there are.
        low: The lower bound of the Wilson interval of the share.
        high: The upper bound.
        alpha: Krippendorff's alpha of the answers; None where it is undefined.
        median_seconds: The median time from the first sight of a pair to the answer; None without answers.
    """

    task: int
    first: str
    second: str
    chosen: int
    answers: int
    low: float
    high: float
    alpha: float | None
    median_seconds: float | None

    @property
    def share(self) -> float | None:
        """The share of answers that chose the first; None without answers."""
        return self.chosen / self.answers if self.answers else None


@dataclass(frozen=True)
class StudyReport:
    """What a study has found.

    Attributes:
        facts: What the study is.
        preferences: A number for each comparison.
        invitations: How many there are.
        participants: How many people have answered something.
        finished: How many of them have answered everything.
        failed: How many of them gave more wrong answers to attention checks than are allowed.
        wrong_checks_allowed: How many wrong ones are allowed.
        left_out: How many participants' answers don't count.
        checks_answered: How many attention checks were answered, by all.
        checks_failed: How many of them wrongly.
        left_share: The share of answers that count for the image on the left, which is near a half if nobody prefers
            a side; None without answers.
        answers: The answers that count, attention checks aside.
    """

    facts: Facts
    preferences: Sequence[Preference]
    invitations: int
    participants: int
    finished: int
    failed: int
    wrong_checks_allowed: int
    left_out: int
    checks_answered: int
    checks_failed: int
    left_share: float | None
    answers: Sequence[Answer]


def report_study(database: str | Path, *, wrong_checks_allowed: int = 0, everyone: bool = False) -> StudyReport:
    """Evaluate the answers of a study so far.

    Args:
        database: The file.
        wrong_checks_allowed: How many attention checks a participant may answer wrongly and still count.
        everyone: Whether those who failed count, too.

    Raises:
        InputError: If it can't be read, is the database of no study, or of another format.
    """
    facts, answers, invitations = _read(Path(database))
    wrong = Counter(answer.participant for answer in answers if answer.is_check and answer.chosen != INTACT)
    failed = {participant for participant, count in wrong.items() if count > wrong_checks_allowed}
    left_out = set() if everyone else failed
    counted = [answer for answer in answers if not answer.is_check and answer.participant not in left_out]
    given = Counter(answer.participant for answer in answers)
    lefts = sum(answer.chosen == answer.left for answer in counted)
    return StudyReport(
        facts=facts,
        preferences=[
            _preference(task, first, second, facts, counted)
            for task, first, second in COMPARISONS
            if {first, second} <= facts.labels.keys()
        ],
        invitations=invitations,
        participants=len(given),
        finished=sum(count == facts.pairs_each + facts.checks for count in given.values()),
        failed=len(failed),
        wrong_checks_allowed=wrong_checks_allowed,
        left_out=len(left_out),
        checks_answered=sum(answer.is_check for answer in answers),
        checks_failed=wrong.total(),
        left_share=lefts / len(counted) if counted else None,
        answers=counted,
    )


def _read(path: Path) -> tuple[Facts, list[Answer], int]:
    """The facts, all answers in order, and the number of invitations; nothing is changed."""
    if not path.is_file():
        raise InputError(f"{path} is no file; give the database of a study, such as study.db")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        with closing(connection):
            _, facts = read_facts(connection, path)
            rows = connection.execute(
                "SELECT number, position, image, left_role, right_role, chosen, answered - shown FROM answers "
                "WHERE chosen IS NOT NULL ORDER BY number, position"
            ).fetchall()
            invitations = connection.execute("SELECT count(*) FROM participants WHERE invited").fetchone()[0]
    except sqlite3.Error as error:
        raise InputError(f"{path} can't be read ({error}); give the database of a study") from None
    return facts, [Answer(*row) for row in rows], invitations


def _preference(task: int, first: str, second: str, facts: Facts, answers: Sequence[Answer]) -> Preference:
    of_pair = [answer for answer in answers if {answer.left, answer.right} == {first, second}]
    chosen = sum(answer.chosen == first for answer in of_pair)
    by_image: dict[str, list[str]] = defaultdict(list)
    for answer in of_pair:
        by_image[answer.image].append(answer.chosen)
    low, high = wilson(chosen, len(of_pair))
    return Preference(
        task=task,
        first=facts.labels[first],
        second=facts.labels[second],
        chosen=chosen,
        answers=len(of_pair),
        low=low,
        high=high,
        alpha=krippendorff_alpha(by_image.values()),
        median_seconds=median(answer.seconds for answer in of_pair) if of_pair else None,
    )


HEAD = ("task", "preferred", "over", "share", f"{CONFIDENCE:.0%} interval", "answers", "alpha", "median time")


def _table(report: StudyReport) -> list[Sequence[str]]:
    """A row of texts for each comparison."""
    return [
        (
            str(row.task),
            row.first,
            row.second,
            "-" if row.share is None else f"{row.share:.1%}",
            f"{row.low:.1%} to {row.high:.1%}",
            str(row.answers),
            "-" if row.alpha is None else f"{row.alpha:.2f}",
            "-" if row.median_seconds is None else f"{row.median_seconds:.1f} s",
        )
        for row in report.preferences
    ]


def _notes(report: StudyReport) -> Iterator[str]:
    """What has to be known beside the numbers, a line each."""
    facts = report.facts
    yield f"question: {facts.question}"
    invited = f" of {report.invitations} invited" if report.invitations else ""
    yield f"participants: {report.participants}{invited}, {report.finished} with all answers"
    if facts.checks:
        share = f"{report.failed / report.participants:.0%}" if report.participants else "none"
        told = "left out" if report.left_out or not report.failed else "counted all the same"
        wrong = f"{report.checks_failed} of {report.checks_answered} answered wrongly"
        failed = f"{report.failed} of {report.participants} participants ({share}) failed"
        yield f"attention checks: {wrong}; {failed} more than {report.wrong_checks_allowed}, {told}"
    else:
        yield "attention checks: none in this study"
    if report.left_share is not None:
        yield f"answers for the image on the left: {report.left_share:.1%}"


def as_lines(report: StudyReport) -> Iterator[str]:
    """The report for a terminal."""
    rows = [HEAD, *_table(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield from _notes(report)


def as_markdown(report: StudyReport) -> str:
    """The report as a table in Markdown, with what has to be known below it."""
    rows = [HEAD, ["---"] * len(HEAD), *_table(report)]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in _notes(report)), ""])


def as_json(report: StudyReport) -> JSON:
    """The report as a JSON object, without the single answers; `share` is null where there are none."""
    content = {name: value for name, value in asdict(report).items() if name != "answers"}
    for row, preference in zip(content["preferences"], report.preferences, strict=True):
        row["share"] = preference.share
    return {**content, "confidence": CONFIDENCE}


def as_csv(report: StudyReport) -> str:
    """The answers that count as CSV, a row each, for statistics of one's own."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["participant", "position", "image", "left", "right", "chosen", "seconds"])
    for answer in report.answers:
        writer.writerow(asdict(answer).values())
    return stream.getvalue()
