"""What is concluded of tables of one seed and of three, and the files that say so."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bnnbench.report.conclusions import as_json, compared, conclude
from bnnbench.report.conclusions_page import summary, write
from bnnbench.report.render import render
from bnnbench.report.rows import group_cells

ROOT = Path(__file__).parents[2]
BASE = {"adabin": 0.72, "xnor": 0.69, "bnn": 0.688, "irnet": 0.61}
TABLE = {"name": "a_table", "published": None}


def accuracies(spread: float = 0.001, shared: float = 0.02) -> dict[str, float]:
    """Cells of three seeds: what a seed gives to all methods, and a little of each one's own."""
    generator = np.random.default_rng(0)
    seeds = generator.normal(0, shared, 3)
    return {
        f"quantizer={name} seed={seed}": acc + seeds[seed] + generator.normal(0, spread)
        for name, acc in BASE.items()
        for seed in range(3)
    }


@pytest.fixture
def swept(make_manifest, make_result):
    def make(cells: dict[str, float], **entries: Any) -> tuple[dict, list, dict]:
        manifest = make_manifest(*cells, **entries)
        results = {
            cell: make_result(
                cell.split()[0].partition("=")[2], acc=acc, seed=int(cell.rpartition("=")[2])
            )
            for cell, acc in cells.items()
        }
        return manifest, group_cells(manifest, results, {}), results

    return make


def test_three_seeds_are_paired_and_corrected_for_all_pairs(swept) -> None:
    cells = accuracies()
    _, rows, _ = swept(cells)
    pairs = compared(rows)
    assert len(pairs) == 6
    expected = []
    for pair, (one, two) in zip(pairs, combinations(BASE, 2), strict=True):
        a, b = (
            [100 * cells[f"quantizer={name} seed={seed}"] for seed in range(3)]
            for name in (one, two)
        )
        theirs = stats.ttest_rel(a, b)
        expected.append(theirs.pvalue)
        assert pair.found.p == pytest.approx(theirs.pvalue)
        assert pair.found.interval == pytest.approx(tuple(theirs.confidence_interval()))
    order, running = np.argsort(expected), 0.0
    for rank, index in enumerate(order):  # Holm, step by step
        running = max(running, min(1.0, (6 - rank) * expected[index]))
        assert pairs[index].p_holm == pytest.approx(running)
    decided = {
        (p.first.choice("quantizer"), p.second.choice("quantizer")) for p in pairs if p.decided
    }
    assert ("adabin", "irnet") in decided
    assert ("xnor", "bnn") not in decided


def test_pairing_takes_out_what_a_seed_does_to_all(swept) -> None:
    cells = accuracies(spread=0.001, shared=0.05)
    _, rows, _ = swept(cells)
    found = compared(rows)[0].found
    one, two = (
        [100 * cells[f"quantizer={n} seed={s}"] for s in range(3)] for n in ("adabin", "xnor")
    )
    alone = stats.ttest_ind(one, two).confidence_interval()
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] < (alone.high - alone.low) / 5


def test_one_seed_concludes_nothing(swept, tmp_path: Path) -> None:
    cells = {f"quantizer={name} seed=0": acc for name, acc in BASE.items()}
    manifest, rows, _ = swept(cells)
    what = conclude(rows, manifest["swept"])
    assert what is not None
    assert what.one_seed
    assert not any(pair.decided for pair in what.pairs)
    assert summary(what, "here.md").startswith("one seed: no difference")
    write(what, "A title", manifest, rows, tmp_path / "c")
    text = (tmp_path / "c.md").read_text()
    assert "nothing can be concluded" in text
    assert "larger than noise" not in text
    content = json.loads((tmp_path / "c.json").read_text())
    assert {d["p"] for d in content["differences"]} == {None}
    assert content["differences"][0]["mean"] == pytest.approx(3.0)


def test_what_the_files_hold(swept, tmp_path: Path) -> None:
    manifest, rows, _ = swept(accuracies())
    what = conclude(rows, manifest["swept"])
    assert what is not None
    write(what, "A | title", manifest, rows, tmp_path / "c")
    text, content = (tmp_path / "c.md").read_text(), json.loads((tmp_path / "c.json").read_text())
    names = {id(row): row.choice("quantizer") for row in rows}
    told = as_json(what, names, manifest, rows)  # methods are names enough here
    assert content == json.loads(json.dumps(told))
    decided = sum(pair.decided for pair in what.pairs)
    assert f"{decided} of 6 pairs of rows of equal bits differ by more than the noise" in text
    assert text.count("| yes") == decided
    assert [set(row["percent"]) for row in content["rows"]] == [{"0", "1", "2"}] * 4
    assert [order["against"] for order in content["seeds"]] == [
        "here seed 0, seed 1",
        "here seed 0, seed 2",
        "here seed 1, seed 2",
    ]


def test_rows_of_one_name_are_told_apart_by_what_was_swept(swept, tmp_path: Path) -> None:
    cells = {f"quantizer=irnet quantizer.t_min={t} seed=0": 0.5 + t for t in (0.1, 0.2)}
    cells |= {"quantizer=xnor quantizer.t_min=0.1 seed=0": 0.7}
    manifest, rows, _ = swept(cells)
    what = conclude(rows, manifest["swept"])
    assert what is not None
    write(what, "A title", manifest, rows, tmp_path / "c")
    content = json.loads((tmp_path / "c.json").read_text())
    assert [row["row"] for row in content["rows"]] == ["irnet t_min=0.1", "irnet t_min=0.2", "xnor"]


def test_other_bits_and_lone_rows_are_compared_with_nothing(swept, make_result) -> None:
    manifest, rows, _ = swept({"quantizer=fp32 seed=0": 0.9, "quantizer=xnor seed=0": 0.8})
    rows[0].results[0]["bits"] = {"w": 32, "a": 32}
    assert conclude(rows, manifest["swept"]) is None


def test_two_lengths_of_one_table_are_compared_once(swept) -> None:
    cells = {f"quantizer={q} trainer.max_epochs={n}": a for q, a in BASE.items() for n in (3, 10)}
    manifest, rows, _ = swept(cells)
    for row in rows:
        for result in row.results:
            result["epochs"] = int(row.options["trainer.max_epochs"])
    what = conclude(rows, manifest["swept"])
    assert what is not None
    assert [order.against for order in what.lengths] == ["here 10 epochs, 3 in this table"]


@pytest.fixture
def rendered(tmp_path, swept, write, hexed):
    """Writes a sweep's files, renders it among others, and returns its table."""

    def make(name: str, cells: dict[str, float], table: dict | None, **entries: Any):
        manifest, _, results = swept(cells, name=name, table=table)
        for cell in manifest["cells"]:
            cell["run"] = f"{name}.{cell['run']}"
            cell["fingerprint"] = hexed(cell["run"])
            result = results[cell["run"].removeprefix(f"{name}.")]
            result |= {"fingerprint": cell["fingerprint"]} | entries
            write(tmp_path / "runs" / f"{cell['run']}.json", result)
        path = write(tmp_path / "sweeps" / f"{name}.json", manifest)
        others = sorted((tmp_path / "sweeps").glob("*.json"))
        where = [tmp_path / "runs"], tmp_path / "out", ROOT / "results" / "published"
        return render(path, *where, name, names=["kernels"], beside=others)

    return make


def test_a_table_points_to_its_conclusions(rendered, tmp_path: Path) -> None:
    file = tmp_path / "out" / "t_quick_conclusions.md"
    table = rendered("t_quick", {f"quantizer={q} seed=0": a for q, a in BASE.items()}, TABLE)
    assert [n for n in table.notes if n.startswith("one seed:") and n.endswith(file.name)]
    text = file.read_text()
    assert "nothing can be concluded" in text
    assert "adabin 72.00 / 88.20" in text  # of results/published
    assert json.loads(file.with_suffix(".json").read_text())["sweep"] == "t_quick"


def test_a_plain_sweep_of_one_seed_is_quiet_and_of_three_is_not(rendered, tmp_path: Path) -> None:
    file = tmp_path / "out" / "mine_conclusions.md"
    table = rendered("mine", accuracies(), None)
    assert [note for note in table.notes if note.startswith("larger than the noise: ")]
    assert file.is_file()
    table = rendered("mine", {f"quantizer={q} seed=0": a for q, a in BASE.items()}, None)
    assert not [note for note in table.notes if "noise" in note]
    assert not file.exists()
    assert not file.with_suffix(".json").exists()


def test_another_length_of_the_table_is_found_by_its_name(rendered, tmp_path: Path) -> None:
    rendered("ten", {f"quantizer={q} seed=0": a for q, a in BASE.items()}, TABLE, epochs=10)
    rendered("other", {f"quantizer={q} seed=0": a for q, a in BASE.items()}, {"name": "else"})
    rendered("quick", accuracies(), TABLE, epochs=16)
    content = json.loads((tmp_path / "out" / "quick_conclusions.json").read_text())
    assert [(o["against"], o["rows"][0]["there"]) for o in content["lengths"]] == [
        ("here 16 epochs, 10 in ten", pytest.approx(72.0))
    ]
    assert "## Order at other lengths" in (tmp_path / "out" / "quick_conclusions.md").read_text()
