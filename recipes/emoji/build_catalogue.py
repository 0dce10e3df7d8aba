"""Writes ``catalogue.json`` from the three npm packages: ``python recipes/emoji/build_catalogue.py WORK_DIR``."""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from emoji_scenes import catalogue, sources
from emoji_scenes.colours import BACKGROUNDS, WORDS
from emoji_scenes.render import sprite

GROUPS = ("Smileys & Emotion", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
AN = re.compile(r"[aeio]|u(?!ni|ku|til)|x-ray|hour|suv")
# What was decided by eye: the faces that are kept (others differ by a brow at 64 pixels), near-duplicates that are
# dropped, names that a person would rather type, names without article, and words that make no good caption.
CHOICES: dict[str, Any] = json.loads(catalogue.PATH.with_name("selection.json").read_text(encoding="utf-8"))
AVOIDED = {*WORDS, *CHOICES["grammar_words"], *CHOICES["improper"]}
CLOCK_FACE = re.compile("\\w+( o\u2019clock|-thirty)")


def ascii_name(name: str) -> str:
    """Lower case, plain letters and quotes, and spaces for hyphens except in words such as t-shirt."""
    name = name.lower().replace("\u2019", "'").replace("ñ", "n")
    return re.sub(r"(?<=\w\w)-(?!yo)", " ", name)


def article(name: str) -> str:
    """``a``, ``an`` or nothing."""
    head = re.split(" (?:with|of|on|in|and) ", name)[0].split()[-1]
    if {name, head} & set(CHOICES["no_article"]) or (head.endswith("s") and head not in CHOICES["singular"]):
        return ""
    return "an" if AN.match(name) else "a"


def shade(body: str) -> str:
    """The named background nearest to the icon's mean colour."""
    pixels = np.asarray(sprite(body, 64), dtype=np.float64)
    mean = (pixels[..., :3] * pixels[..., 3:]).sum((0, 1)) / pixels[..., 3].sum()
    return min(BACKGROUNDS, key=lambda name: float(np.square(mean - BACKGROUNDS[name]).sum()))


def selected(folder: Path) -> list[dict[str, Any]]:
    """The kept emoji with their icon, names and raw keywords, before keywords are sorted out."""
    bodies = sources.read_json(sources.NOTO, "icons.json", folder)["icons"]
    icons = sources.read_json(sources.NOTO, "chars.json", folder)
    keywords = sources.read_json(sources.KEYWORDS, "dist/emoji-en-US.json", folder)
    rows = []
    for emoji, facts in sources.read_json(sources.NAMES, "data-by-emoji.json", folder).items():
        full, group = facts["name"], facts["group"]
        icon = icons.get("-".join(f"{ord(char):x}" for char in emoji if char != "\ufe0f"))
        if full in CHOICES["dropped"] or (group == GROUPS[0] and full not in CHOICES["faces"]):
            continue
        if icon is None or group not in GROUPS or CLOCK_FACE.fullmatch(full):
            continue
        name = ascii_name(CHOICES["renamed"].get(full, full))
        raw = [ascii_name(re.sub(r"[_\xa0]", " ", word)) for word in keywords.get(emoji, [])]
        rows.append({"name": name, "full": ascii_name(full), "icon": icon, "group": group, "raw": raw})
        rows[-1]["shade"] = shade(bodies[icon]["body"])
    return rows


def split_keywords(rows: list[dict[str, Any]]) -> None:
    """Sorts each row's raw words into synonyms, which no other object shares, and keywords, which a few do."""
    usable = re.compile(r"[a-z][a-z '-]{2,24}")
    counts = Counter(word for row in rows for word in {row["full"], *row["raw"]})
    name_words = Counter(word for row in rows for word in {row["name"], *row["name"].split()})
    for row in rows:
        words = dict.fromkeys([row.pop("full"), *row.pop("raw")])
        clean = [w for w in words if usable.fullmatch(w) and not AVOIDED & set(w.split()) and w != row["name"]]
        # A word of another object's name would call up that object: "dog" is no synonym of "hot dog".
        own = set(row["name"].split())
        synonyms = [w for w in clean if counts[w] == 1 and name_words[w] == (w in own) and len(w.split()) <= 3]
        row["synonyms"] = [w for w in synonyms if w not in own or len(own) > 1][:4]
        row["keywords"] = [w for w in clean if 1 < counts[w] <= 160 and len(w.split()) == 1 and w not in own][:6]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the downloaded packages")
    rows = selected(parser.parse_args().work)
    split_keywords(rows)
    names = Counter(row["name"] for row in rows)
    clashes = [name for name, count in names.items() if count > 1 or WORDS & set(name.split())]
    if clashes:
        raise SystemExit(f"names that are not unique or hold a colour: {clashes}")
    lines = [json.dumps({**row, "article": article(row["name"])}, separators=(",", ":")) for row in rows]
    catalogue.PATH.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    print(f"{len(rows)} objects in {catalogue.PATH}")


if __name__ == "__main__":
    main()
