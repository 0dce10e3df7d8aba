"""Reports as JSON, as Markdown, as lines for a terminal, and as the `model-index` of a model card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard

from latentdiff.errors import InputError, one_line
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.io.files import check_writable, write_text
from latentdiff.types import JSON

BEGIN, END = "<!-- evaluation -->", "<!-- end of evaluation -->"  # what is written between them in a card is ours


def as_json(report: Report) -> JSON:
    """The report as a JSON object: `results`, each with name, metric, protocol, value and std; `facts`; `notes`."""
    return {
        "results": [
            {
                "name": result.name,
                "metric": result.metric,
                "protocol": list(result.protocol),
                "value": _number(result.value),
                "std": result.std,
            }
            for result in report.results
        ],
        "facts": dict(report.facts),
        "notes": list(report.notes),
    }


def as_markdown(report: Report) -> str:
    """The report as a table in Markdown, with the facts below it."""
    rows = [f"| {result.name} | {_value(result)} |" for result in report.results]
    facts = [f"- {name.replace('_', ' ')}: {value}" for name, value in report.facts.items() if value is not None]
    notes = [f"- {note}" for note in report.notes]
    return "\n".join(["| metric | value |", "|---|---|", *rows, "", *facts, *notes, ""])


def as_lines(report: Report) -> Iterator[str]:
    """The report for a terminal: a line for each number and each note."""
    width = max((len(result.name) for result in report.results), default=0)
    for result in report.results:
        yield f"{result.name:{width}}  {_value(result)}"
    for note in report.notes:
        yield f"note: {note}"


def eval_results(report: Report, task: str, dataset: str) -> list[EvalResult]:
    """The numbers as the hub's metadata of models has them.

    Args:
        report: The report.
        task: The hub's name of the task, such as "unconditional-image-generation".
        dataset: The data set that the reference is of: its id on the hub, or any name.
    """
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type=result.metric,
            metric_name=result.name,
            metric_value=result.value,
        )
        for result in report.results
    ]


def add_to_card(path: str | Path, report: Report, dataset: str) -> None:
    """Put the numbers into a model card: into its `model-index`, and as a table; of equal names, the new ones stay.

    Args:
        path: The card, README.md, or the folder that has it.
        report: The report.
        dataset: As in `eval_results`.

    Raises:
        InputError: If there is no card, or it can't be read or written.
    """
    path, card = read_card(path)
    new = eval_results(report, card.data.get("pipeline_tag") or "unconditional-image-generation", dataset)
    names = {(result.metric_name, result.dataset_type) for result in new}
    old = [result for result in card.data.eval_results or [] if (result.metric_name, result.dataset_type) not in names]
    card.data.eval_results = [*old, *new]
    card.data.model_name = card.data.model_name or path.resolve().parent.name
    card.text = _with_table(card.text, card.data.eval_results)
    write_text(path, str(card))


def _with_table(text: str, results: list[EvalResult]) -> str:
    """The text of a card with a table of all numbers, at the end or in place of an earlier one."""
    rows = []
    for result in results:
        value = result.metric_value  # of results that others have put there, anything
        shown = f"{value:.6g}" if isinstance(value, (int, float)) else one_line(value)
        rows.append(f"| {result.metric_name or result.metric_type} | {shown} | {result.dataset_name} |")
    lines = [BEGIN, "## Evaluation", "", "| metric | value | data |", "|---|---|---|", *rows, END]
    table = "\n".join(lines)
    earlier = re.compile(f"{BEGIN}.*?{END}", re.DOTALL)
    if earlier.search(text):
        return earlier.sub(lambda _: table, text, count=1)
    return f"{text.rstrip()}\n\n{table}\n"


def read_card(path: str | Path) -> tuple[Path, ModelCard]:
    """The path and content of a model card that can be written.

    Args:
        path: The card, or the folder that has it.

    Raises:
        InputError: If there is none, or it can't be read or written.
    """
    path = Path(path)
    path = path / "README.md" if path.is_dir() else path
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} cannot be read as a model card ({reason}); give a README.md") from None
    return check_writable(path), card


def _number(value: float) -> float | str:
    """A number as JSON has it, which has no infinite ones."""
    return value if math.isfinite(value) else str(value)


def _value(result: Result) -> str:
    return f"{result.value:.6g}" if result.std is None else f"{result.value:.6g} ± {result.std:.3g}"
