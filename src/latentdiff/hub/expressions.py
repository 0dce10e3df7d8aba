"""Regular expressions in the files of a model: which of them could keep a program busy for ever."""

from __future__ import annotations

import re

LONGEST_EXPRESSION = 2000  # characters; the longest of a known tokenizer has a few hundred
MOST_REPETITIONS = 4  # in one alternative: n of them may take a time that grows as the text's length to the power n
MOST_REPETITIONS = 1000

ESCAPED = re.compile(r"\\[pP]\{[^}]*\}|\\.", re.DOTALL)  # a class of characters such as \p{L}, or one character
SET = re.compile(r"\[\^?\]?[^\]]*\]")
GROUP = re.compile(r"\((\?[\w-]*[:=!<>]*)?([^()]*)\)")
REPETITION = re.compile(r"[*+]|\{[\d,]")


def may_take_endless_time(expression: str) -> bool:
    """Whether the time of a regular expression may double with every letter of a text, or come close to that.

    Such are expressions that repeat a group which holds a repetition or a choice, as (a+)+ and (a|a)* do, and those
    with many repetitions in a row. Some harmless ones are among them, but none that a known tokenizer has.
    """
    if len(expression) > LONGEST_EXPRESSION or any(
        int(count) > MOST_REPETITIONS for count in re.findall(r"(?<=[{,])\d+", expression)
    ):
        return True
    text = SET.sub("x", ESCAPED.sub("x", expression))
    while (group := GROUP.search(text)) is not None:
        inside, after = group[2], text[group.end() :]
        varies = "|" in inside or REPETITION.search(inside) is not None
        if varies and REPETITION.match(after):
            return True
        text = f"{text[: group.start()]}{'x+' if varies else 'x'}{after}"
    return any(len(REPETITION.findall(alternative)) > MOST_REPETITIONS for alternative in text.split("|"))
