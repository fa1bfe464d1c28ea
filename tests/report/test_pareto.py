"""Accuracy against time and size: who is drawn, and where."""

from pathlib import Path

from bnnbench.report import pareto as module
from bnnbench.report.efficiency import Bench
from bnnbench.report.pareto import by_data, front, pareto, points


def timed(make_result, acc: float, **entries) -> dict:
    config = {
        "quantizer": {"name": "adabin", "t_max": 10.0},
        "backbone": {"name": "resnet20"},
        "dataset": {"in_channels": 3, "image_size": 32},
    }
    return make_result(acc=acc, config=config | entries.pop("more", {}), **entries)


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    found = [(2.0, 80.0), (1.0, 70.0), (3.0, 75.0), (1.0, 72.0), (4.0, 80.0), (5.0, 81.0)]
    assert front(found) == [(1.0, 72.0), (2.0, 80.0), (5.0, 81.0)]


def test_seeds_are_one_point_and_sizes_are_of_one_kind(make_result, make_speeds) -> None:
    """Those of files where all have one."""
    export = {"work": "0123456789abcdef", "bytes": 61256}
    seeds = [timed(make_result, acc, more={"seed": i}) for i, acc in enumerate((0.8, 0.9))]
    for result in seeds:
        result["config"]["dataset"]["seed"] = result["config"]["seed"]
    others = [timed(make_result, 0.7, more={"recipe": {"name": "x"}}, export=export)]
    found = points(seeds + others, Bench("a.json", make_speeds()))
    assert [round(point.score, 6) for point in found] == [85.0, 70.0]
    assert [point.ms for point in found] == [0.5, 0.5]
    assert [point.bytes for point in found] == [48950, 48950]
    assert [point.bytes for point in points(others, None)] == [61256]


def test_folders_of_images_are_data_of_their_own(make_result) -> None:
    results = [make_result(config={"dataset": {"name": name}}) for name in ("birds", "bees")]
    assert list(by_data(results)) == [("bees", "acc", 2), ("birds", "acc", 2)]


def test_only_full_runs_on_test_data_count(make_result) -> None:
    results = [
        make_result(),
        make_result(ended="max_time"),
        make_result(headline=None),
        make_result(headline="val/acc"),
    ]
    assert [len(found) for found in by_data(results).values()] == [1]
    assert list(by_data(results)) == [("cifar10", "acc", 2)]


def test_a_picture_is_drawn_where_something_was_timed(
    tmp_path: Path, make_result, make_speeds
) -> None:
    bench = Bench("a.json", make_speeds())
    assert not pareto([make_result("xnor")], bench, tmp_path / "none")
    assert not list(tmp_path.iterdir())
    results = [timed(make_result, 0.8), make_result("xnor", acc=0.6)]
    assert pareto(results, bench, tmp_path / "efficiency")
    content = (tmp_path / "efficiency.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    pareto(results, bench, tmp_path / "again")
    assert (tmp_path / "again.png").read_bytes() == content


def test_the_longest_trainings_of_a_data_set_are_drawn(
    tmp_path: Path, make_result, make_speeds, monkeypatch
) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(module, "_drawn", lambda panels, *_: drawn.extend(p.title for p in panels))
    images = {"in_channels": 3, "image_size": 32}
    lengths = {"cifar10": (9, 10, 2), "digits": (3,)}
    results = [
        timed(
            make_result,
            acc,
            epochs=epochs,
            more={"dataset": images | {"name": name}, "recipe": {"lr": acc}},
        )
        for name, own in lengths.items()
        for epochs in own
        for acc in (0.7, 0.8)
    ]
    bench = Bench("a.json", make_speeds())
    pareto(results, bench, tmp_path / "efficiency")
    assert drawn == ["cifar10, 10 epochs"] * 2 + ["digits, 3 epochs"] * 2
    drawn.clear()
    more = {"dataset": images | {"name": "cifar10"}}  # one method and its twin, for longer
    results += [timed(make_result, 0.9, epochs=60, more=more)]
    results += [make_result("fp32", acc=0.95, epochs=60, config=more)]
    pareto(results, bench, tmp_path / "efficiency")
    assert drawn == ["cifar10, 10 epochs"] * 2 + ["digits, 3 epochs"] * 2
