"""Reports say the numbers that were measured, and the picture has them where its axes say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from latentdiff.bench import plot
from latentdiff.bench.against import Against
from latentdiff.bench.flops import Flops, Peak
from latentdiff.bench.plot import COLOURS, quality_plot, write_plot
from latentdiff.bench.quality import Cell, Quality
from latentdiff.bench.reports import as_json, as_lines, as_markdown
from latentdiff.bench.run import BenchReport
from latentdiff.bench.speed import Speed
from latentdiff.bench.timing import Phases

FACTS = {"model": "m", "task": "text-to-image", "size": "16x16", "solver": "heun", "steps": 10, "dtype": "float32"}
SPEED = Speed(
    load_seconds=0.5,
    first_image_seconds=3.0,
    image_seconds=2.0,
    batch_size=4,
    rounds=7,
    network_calls=19,
    samples_per_second=1.25,
    steps_per_second=8.0,
    phases=Phases(0.0, 0.125, 0.5, 3.2),
    peak_memory=3 * 2**20,
    memory_source="resident size of the process",
    weights=2**19,
    flops=Flops(10**9, 2 * 10**9, 3 * 10**9),
    peak=Peak(128e9, 64e9, "float32"),
)
AGAINST = Against(
    "LDMPipeline", "0.42", 10, 4, 7, ours=2.0, theirs=3.0, ratio=1.4, difference=1e-6, from_embeddings=True
)
CELLS = [
    Cell("ddim", 5, 5, 8.0, 30.0),
    Cell("ddim", 10, 10, 4.0, 20.0),
    Cell("heun", 5, 9, 4.5, 40.0),
    Cell("heun", 10, 19, 2.0, 10.0),
]
QUALITY = Quality("frechet[small, none, 4, train]", CELLS, Cell("ddim", 250, 250, 0.2, 20.0), ["ddim:5: too high", "b"])
REPORT = BenchReport(FACTS, SPEED, AGAINST, QUALITY)


def test_lines():
    lines = [" ".join(line.split()) for line in as_lines(REPORT)]
    assert lines == [
        "m, 16x16, heun 10 steps, float32 measured",
        "loading the model 0.5 s",
        "first image after loading 3 s",
        "one image later on 2 s",
        "samples a second, 4 at once 1.25",
        "steps a second of 4 at once 8",
        "peak memory, resident size of the process 3 MiB",
        "weights 0.5 MiB",
        "",
        "component GFLOP an image ms, 4 at once share of the peak",
        "text encoder, keys of the context 1 0 too short",
        "UNet, one step 2 125 50.0 %",
        "decoder 3 500 18.8 %",
        "a whole call 42 3.2e+03 41.0 %",
        "",
        "4 images, ddim 10 steps, from text embeddings, median of 7 seconds samples a second",
        "latentdiff 2 2",
        "diffusers 0.42, LDMPipeline 3 1.333",
        "diffusers / latentdiff, median of the rounds 1.400",
        "",
        "frechet[small, none, 4, train] 5 steps 10 steps",
        "ddim 30 20",
        "heun 40 10",
        "",
        "samples a second 5 steps 10 steps",
        "ddim 8 4",
        "heun 4.5 2",
        "",
        "the machine's peak is 128 GFLOP/s in float32: square matrices 128, 3x3 convolutions 64",
        "speeds are medians of 7 calls",
        "the images of latentdiff and diffusers differ by at most 1.0e-06 of white",
        "heun calls the network 19 times in 10 steps",
        "ddim has 20 at 250 steps (0.2 samples a second); the fewest steps that reach it: ddim 10 (20), heun 10 (10)",
        "ddim:5: too high (and 1 more distances alike)",
    ]


@pytest.mark.parametrize(("rounds", "line"), [(1, "those of a single call"), (2, "medians of 2 calls")])
def test_speeds_of_one_round_are_no_medians(rounds, line):
    report = BenchReport(FACTS, replace(SPEED, rounds=rounds), None, None)
    assert f"speeds are {line}" in list(as_lines(report))


def test_solvers_that_miss_the_target_are_named():
    quality = Quality("f[]", CELLS, Cell("ddim", 250, 250, 0.2, 15.0), [])
    assert (
        "it: heun 10 (10); not by ddim in these steps" in list(as_lines(BenchReport(FACTS, SPEED, None, quality)))[-1]
    )


def test_markdown_has_the_tables_and_the_facts():
    text = as_markdown(REPORT)
    assert "| frechet[small, none, 4, train] | 5 steps | 10 steps |\n| --- | --- | --- |\n| ddim | 30 | 20 |\n" in text
    assert "- size: 16x16\n" in text and "- heun calls the network 19 times in 10 steps\n" in text


def test_json_has_every_number():
    found = json.loads(json.dumps(as_json(REPORT)))
    assert found["facts"] == FACTS and found["against"]["ratio"] == 1.4
    assert found["speed"]["flops"] == {"condition": 10**9, "step": 2 * 10**9, "decode": 3 * 10**9}
    assert found["speed"]["shares_of_peak"]["step"] == 0.5
    assert found["quality"]["cells"][3] == {
        "solver": "heun", "steps": 10, "network_calls": 19, "samples_per_second": 2.0, "distance": 10.0,
    }  # fmt: skip
    assert found["quality"]["fewest_steps"] == {"ddim": 10, "heun": 10}
    alone = as_json(BenchReport(FACTS, SPEED, None, None))
    assert alone["against"] is None and alone["quality"] is None


def places(picture, colour):
    """The middle of each marker of a colour, from the left, without the legend's."""
    near = np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(axis=2) < 40
    near[:, plot.WIDTH - plot.RIGHT + 1 :] = False
    found = []
    for y, x in zip(*np.nonzero(near), strict=True):
        inside = near[y - 1 : y + 2, x - 1 : x + 2]
        if inside.all():
            found.append((x, y))
    groups: list[list[tuple[int, int]]] = []
    for x, y in sorted(found):
        group = next((group for group in groups if abs(group[0][0] - x) < 8 and abs(group[0][1] - y) < 8), None)
        groups.append([(x, y)]) if group is None else group.append((x, y))
    return [tuple(np.mean(group, axis=0)) for group in groups]


def test_points_stand_at_their_speed_and_distance_on_logarithmic_axes():
    picture = quality_plot(QUALITY)
    (slow, fast), (slower, faster) = places(picture, COLOURS[0]), places(picture, COLOURS[1])
    octave = fast[0] - slow[0]  # from 4 to 8 samples a second
    assert slow[0] - slower[0] == pytest.approx(octave, abs=1.5)  # from 2 to 4
    assert faster[0] - slow[0] == pytest.approx(octave * np.log2(4.5 / 4), abs=1.5)
    doubled = slower[1] - slow[1]  # from 10 to 20, upwards
    assert doubled > 0 and slower[1] - faster[1] == pytest.approx(2 * doubled, abs=1.5)
    assert slower[1] - fast[1] == pytest.approx(doubled * np.log2(3), abs=1.5)


def test_the_target_is_a_dashed_line_at_its_distance():
    dark = np.asarray(quality_plot(QUALITY).convert("L"))[:, plot.LEFT + 4 : plot.WIDTH - plot.RIGHT] < 110
    (slow, _) = places(quality_plot(QUALITY), COLOURS[0])
    rows = np.flatnonzero(dark[: plot.HEIGHT - plot.BOTTOM - 3].sum(axis=1) > 200)
    assert len(rows) and abs(rows.mean() - slow[1]) < 1.5  # ddim has the target's distance at 10 steps
    without = Quality("f[]", CELLS, None, [])
    dark = np.asarray(quality_plot(without).convert("L"))[:, plot.LEFT + 4 : plot.WIDTH - plot.RIGHT] < 110
    assert not (dark[: plot.HEIGHT - plot.BOTTOM - 3].sum(axis=1) > 200).any()


@pytest.mark.parametrize(
    "cells", [CELLS[:1], [Cell("a", 1, 1, 1.0, 0.0)], [Cell(f"s{n}", 1, 1, n + 1, 5.0) for n in range(14)]]
)
def test_single_points_equal_distances_and_many_solvers_are_drawn(tmp_path, cells):
    write_plot(tmp_path / "plot.png", Quality("f[]", cells, None, []))
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (plot.WIDTH, plot.HEIGHT)
