"""Which settings are one entry, and which are ranked with which."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

import pytest

from bnnbench.report.markup import Table
from bnnbench.report.published import load_published
from bnnbench.report.rows import Row
from bnnbench.site.boards import Addresses, comparison_grid, point_of
from bnnbench.site.entries import measured, published, ranked
from bnnbench.site.reading import read

ROOT = Path(__file__).parents[2]


def entries(world) -> list:
    nowhere = world.root / "no logs"
    return ranked(measured(read(world.results, nowhere, nowhere), None))


def test_seeds_are_one_entry_with_their_mean_and_deviation(world) -> None:
    scores = [0.5, 0.6, 0.72]
    for seed, score in enumerate(scores):
        world.run(f"s{seed}", score, seed=seed, **{"config.dataset.seed": seed})
    (entry,) = entries(world)
    assert entry.score == pytest.approx(100 * mean(scores))
    assert entry.text == f"{100 * mean(scores):.2f} ± {100 * stdev(scores):.2f}"
    assert entry.runs == [("s0", 0), ("s1", 1), ("s2", 2)]


def test_other_data_of_one_name_are_no_seeds(world) -> None:
    for number in "01":
        world.run(f"s{number}", data_stamp=f"sha256:{number * 64}")
    assert len(entries(world)) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"bits": {"w": 1, "a": 2}},
        {"bases": {"w": 5, "a": 1}},
        {"epochs": 400},
        {"ended": "limit_train_batches=2"},
        {"structure.shortcut": "block"},
        {"structure.downsample": "conv"},
        {"structure.nonlinearity": "relu"},
        {"structure.head_norm": False},
        {"structure.first": "binary"},
        {"structure.padding_value": 1},
        {"choices.recipe": "native"},
        {"choices.teacher": "run"},
        {"choices.backbone": "resnet18"},
        {"choices.dataset": "cifar100"},
        {"config.dataset.folder": "/mine/birds"},
        {"config.backbone.widths": [32, 64, 128]},
        {"data_stamp": f"sha256:{'1' * 64}"},
        {"headline": "test/loss_free", "metrics.last": {}, "metrics.best": {}},
    ],
    ids=str,
)
def test_what_is_not_comparable_has_no_common_rank(world, change: dict) -> None:
    if "headline" in change:  # held-out images instead of the test set
        last = {"val/acc": 0.95}
        change = {"headline": "val/acc", "metrics.last": last, "metrics.best": {}}
    same = {"data_stamp": f"sha256:{'0' * 64}"}
    world.run("one", 0.8, **same)
    world.run("two", 0.7, **same, **{"choices.quantizer": "xnor"})
    change = same | change
    world.run("odd", 0.9, **({"choices.quantizer": "bnn"} | change))
    found = {entry.method: entry for entry in entries(world)}
    assert (found["adabin"].place, found["xnor"].place) == ((1, 2), (2, 2))
    assert found["bnn"].place is None
    assert found["bnn"].comparable != found["xnor"].comparable


def test_equal_scores_share_a_place_and_no_score_has_none(world) -> None:
    world.run("one", 0.8)
    world.run("two", 0.8, **{"choices.quantizer": "xnor"})
    world.run("three", 0.7, **{"choices.quantizer": "bnn"})
    undefined = {"metrics.last": {"test/acc": None}, "metrics.best": {}}
    world.run("four", **{"choices.quantizer": "dorefa"} | undefined)
    found = {entry.method: entry.place for entry in entries(world)}
    assert found == {"adabin": (1, 3), "xnor": (1, 3), "bnn": (3, 3), "dorefa": None}


def test_rows_of_one_method_say_how_they_differ(world) -> None:
    world.run("one", 0.8, **{"config.quantizer.t": 0.1})
    world.run("two", 0.7, **{"config.quantizer.t": 0.2})
    world.run("three", 0.6)
    world.run("xnor", 0.5, **{"choices.quantizer": "xnor", "config.quantizer.t": 0.3})
    told = ["quantizer.t=0.1", "quantizer.t=0.2", "quantizer.t=none", ""]
    assert [entry.apart for entry in entries(world)] == told


def test_as_many_keys_are_named_as_tell_all_apart(world) -> None:
    keys = [f"config.quantizer.{key}" for key in "abcd"]
    for number in range(16):
        values = {key: number >> bit & 1 for bit, key in enumerate(keys)}
        also = {"config.quantizer.e": values[keys[3]] + 5}  # follows from another
        world.run(f"run{number}", 0.9 - number / 100, **values, **also)
    texts = [entry.apart for entry in entries(world)]
    assert len(set(texts)) == 16
    assert texts[0] == ", ".join(f"quantizer.{key}=0" for key in "abcd")


def test_other_settings_of_one_recipe_have_no_common_rank(world) -> None:
    """What is left out of a config means what it meant before it was known."""
    world.run("one", 0.8, **{"config.recipe.lr": 0.1, "config.recipe.pct_start": 0.3})
    world.run("two", 0.7, **{"config.recipe.lr": 0.1, "choices.quantizer": "xnor"})
    world.run("three", 0.6, **{"config.recipe.lr": 0.2, "config.dataset.batch_size": 64})
    found = {entry.runs[0][0]: entry for entry in entries(world)}
    assert [found[name].place for name in ("one", "two", "three")] == [(1, 2), (2, 2), None]
    assert "recipe unified (lr=0.1)" in found["one"].comparable[0]
    assert "recipe unified (lr=0.2)" in found["three"].comparable[0]


def test_what_a_reader_must_know_is_marked(world) -> None:
    world.run("one", **{"git.dirty": True, "ended": "max_time=1", "source_hash": "0" * 64})
    (entry,) = entries(world)
    assert {mark.kind for mark in entry.marks} == {"stale", "partial", "dirty"}


def test_published_numbers_have_no_rank_and_say_where_they_are_from() -> None:
    content = load_published(ROOT / "results/published/adabin_cifar10.yaml")
    found = ranked(published({"adabin_cifar10": content}))
    assert all(entry.place is None and entry.device for entry in found)
    recalled = [row for row in content["rows"] if not row["verified"]]
    marked = [e for e in found if any(mark.kind == "unverified" for mark in e.marks)]
    assert 0 < len(marked) <= len(recalled)
    assert {entry.score for entry in found} == {row["values"]["top1"] for row in content["rows"]}


def test_folders_of_images_have_headings_and_panels_of_their_own(world) -> None:
    folders = ["birds", "birds", "cars", "cars"]
    rows = [
        Row({"dataset": "image_folder"}, {"dataset.name": name}, 1, [world.run(f"r{number}")])
        for number, name in enumerate(folders)
    ]
    table = Table("title", ["quantizer", "bits"], [["bnn", "1/1"]] * 4, [])
    lines = comparison_grid(table, rows, Addresses()).lines
    assert [line.group[0].split()[0] for line in lines] == folders
    assert [line.point.split(",")[0] for line in lines] == folders


def test_a_cut_run_is_drawn_in_no_panel_of_whole_ones(world) -> None:
    world.run("whole")
    world.run("cut", **{"ended": "max_time=1"})
    panels = {point_of(entry).partition("|")[0] for entry in entries(world)}
    assert len(panels) == 2
