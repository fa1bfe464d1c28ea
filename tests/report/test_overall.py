"""Overall scores of hand-made sweeps, against values worked out by hand; nothing from nothing."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from bnnbench.commands.report import check_scores, with_table
from bnnbench.report.efficiency import Bench
from bnnbench.report.markup import MISSING
from bnnbench.report.overall import Sweep, kind_of, overall, pairs_of
from bnnbench.report.overall_page import (
    TITLES,
    Where,
    methods_of,
    nothing,
    page,
    read_manifests,
    sweeps_of,
    table_of,
)
from bnnbench.report.rows import Row
from bnnbench.report.tracks import TRACKS

ROOT = Path(__file__).parents[2]
SAME = "backbone.shortcut=conv backbone.nonlinearity=hardtanh backbone.head_norm=false"
COST = {"wall_s": 1.0, "images_per_s": 1.0}
Scores = dict[str, dict[str, float | None]]
TASKS: Scores = {
    "fp32": {"cifar10": 0.9, "shapes": 0.8},
    "xnor": {"cifar10": 0.45, "shapes": 0.08},  # 0.5 and 0.1 of the twin's
    "adabin": {"cifar10": 0.81, "shapes": None},
}


@pytest.fixture
def tasks(make_manifest, make_result):
    """A sweep of the table `tasks`: accuracies by method and data set; None: not run."""

    def make(scores: Scores = TASKS, table: str = "tasks", **entries: Any) -> Sweep:
        results, cells = {}, []
        for method, by_set in scores.items():
            for dataset, acc in by_set.items():
                cells.append(cell := f"quantizer={method} dataset={dataset} {SAME}")
                if acc is None:
                    continue
                plain = method == "fp32"
                results[cell] = make_result(
                    method,
                    acc,
                    fingerprint=cell,
                    operations={
                        "ops": 64e6 if plain else 2e6,
                        "packed_bytes": 3200 if plain else 200,
                    },
                    time=COST | {"train_s": 10.0 if plain else 20.0, "train_memory_mb": 1.0},
                )
                results[cell]["choices"]["dataset"] = dataset
        settings = {"backbone.name": "resnet20", "recipe.name": "unified"}
        manifest = make_manifest(*cells, settings=settings, table={"name": table}, scale="quick")
        return Sweep("tasks_quick", manifest | entries, results)

    return make


@pytest.fixture
def sensitivity(make_manifest, make_result):
    """A sweep over three rates: accuracies by method."""

    def make(scores: dict[str, tuple[float | None, ...]]) -> Sweep:
        results, cells = {}, []
        for method, accuracies in scores.items():
            for rate, acc in zip(("1e-1", "1e-2", "1e-3"), accuracies, strict=True):
                cells.append(cell := f"quantizer={method} recipe.lr={rate} {SAME}")
                if acc is not None:
                    train_s = 5.0 if method == "fp32" else 10.0
                    results[cell] = make_result(
                        method, acc, fingerprint=cell, time=COST | {"train_s": train_s}
                    )
        names = {"backbone": "resnet20", "dataset": "cifar10", "recipe": "unified"}
        settings = {f"{group}.name": name for group, name in names.items()}
        table = {"name": "sensitivity_cifar10"}
        manifest = make_manifest(*cells, settings=settings, table=table, scale="quick")
        return Sweep("sensitivity_cifar10_quick", manifest, results)

    return make


def test_the_task_score_is_of_all_tasks_and_who_lacks_one_has_none(tasks) -> None:
    track = overall([tasks()])["task"]
    assert track.scores == {"xnor": pytest.approx(math.sqrt((0.25 + 0.01) / 2))}
    assert track.parts == ["cifar10", "shapes"]
    assert track.lacking == {"adabin": ["shapes"]}
    assert track.sources == ["tasks_quick"]


def test_complexity_is_counted_from_the_same_rows(tasks) -> None:
    """16 times fewer bytes, 32 times fewer operations."""
    track = overall([tasks()])["complexity"]
    assert track.scores == {"xnor": pytest.approx(math.sqrt((16**2 + 32**2) / 2))}
    assert track.parts == ["resnet20 on cifar10", "resnet20 on shapes"]


def test_complexity_is_of_every_network_of_all_tables(tasks) -> None:
    others = tasks({"fp32": {"digits": 0.9}, "xnor": {"digits": 0.8}}, "architectures_cifar10")
    track = overall([tasks(), others._replace(name="architectures_cifar10_quick")])["complexity"]
    assert track.parts == ["resnet20 on cifar10", "resnet20 on shapes", "resnet20 on digits"]
    assert track.sources == ["tasks_quick", "architectures_cifar10_quick"]


def test_who_was_not_measured_at_all_in_a_track_is_told(tasks) -> None:
    losses = {"bnn": {"fog": (0.2, 0.1)}}
    notes = table_of(overall([tasks()], losses=losses, tested=["a file"]), "quick").notes
    assert f"learning task {MISSING}: bnn not measured" in notes
    assert f"corruption robustness {MISSING}: xnor not measured" in notes
    assert f"learning task {MISSING}: adabin lacks shapes" in notes


def test_training_is_of_every_setting_beside_the_twins(sensitivity) -> None:
    """Deviations of 10 and 20 points, twice the time; ReActNet was not run at one rate."""
    scores = {"fp32": (0.8, 0.7, 0.6), "xnor": (0.5, 0.3, 0.1), "reactnet": (0.5, 0.3, None)}
    track = overall([sensitivity(scores)])["training"]
    assert track.scores == {"xnor": pytest.approx(0.5)}
    assert track.lacking == {"reactnet": ["0.001"]}
    assert track.parts == ["0.1", "0.01", "0.001"]
    (line,) = track.details
    assert line.startswith("xnor takes 2.00 times as long as its twins, spreads by 20.00 points")
    assert line.endswith("(twins 10.00) and has 50.00 % at best (twins 80.00)")


def test_without_twins_without_results_and_of_other_tables_there_is_no_score(
    tasks, sensitivity
) -> None:
    assert overall([]) == {}
    assert overall([tasks({"xnor": TASKS["xnor"]})]) == {}
    assert overall([tasks({m: dict.fromkeys(s) for m, s in TASKS.items()})]) == {}
    assert overall([tasks(table="unified_cifar10")]) == {}
    flat = {"fp32": (0.8, 0.7, 0.6), "xnor": (0.3, 0.3, 0.3)}
    assert "training" not in overall([sensitivity(flat)])  # a spread of 0 divides nothing


def test_a_twin_that_found_nothing_is_no_part(tasks) -> None:
    scores: Scores = {"fp32": {"cifar10": 0.9, "shapes": 0.0}, "xnor": TASKS["xnor"]}
    track = overall([tasks(scores)])["task"]
    assert track.parts == ["cifar10"]
    assert track.scores == {"xnor": pytest.approx(0.5)}


def test_what_two_sweeps_have_counts_once(tasks) -> None:
    """Twice in the mean of a part, it would outweigh what one of the sweeps alone has."""
    once = pairs_of([tasks()])
    assert len(pairs_of([tasks(), tasks()])) == len(once) == 3
    assert overall([tasks(), tasks()])["task"].scores == overall([tasks()])["task"].scores


def test_a_table_typed_with_another_structure_or_recipe_is_another_table(tasks) -> None:
    better: Scores = {
        "fp32": {"cifar10": 0.9, "shapes": 0.8},
        "xnor": {"cifar10": 0.8, "shapes": 0.7},
    }
    other = tasks(better)._replace(name="other")
    other.manifest["cells"] = [
        cell | {"overrides": cell["overrides"] | {"recipe.lr": "0.1"}}
        for cell in other.manifest["cells"]
    ]
    for run, result in other.results.items():
        result["fingerprint"] = f"other {run}"
    found = overall([tasks(), other])["task"]
    assert (found.scores, found.sources) == (overall([tasks()])["task"].scores, ["tasks_quick"])


def test_a_seed_of_another_sweep_counts_once(make_manifest, make_result) -> None:
    def sweep(name: str, seeds: range) -> Sweep:
        results = {
            f"quantizer={method} dataset=cifar10 {SAME} seed={s}": make_result(
                method,
                0.9 if method == "fp32" else 0.3 + 0.3 * s,
                seed=s,
                fingerprint=f"{method} {s}",
            )
            for method in ("fp32", "xnor")
            for s in seeds
        }
        settings = {"backbone.name": "resnet20", "recipe.name": "unified"}
        table = {"name": "tasks"}
        manifest = make_manifest(*results, settings=settings, table=table, scale="quick")
        return Sweep(name, manifest, results)

    whole = sweep("tasks_quick", range(3))
    assert overall([whole])["task"].scores == {"xnor": pytest.approx(2 / 3)}
    found = overall([whole, sweep("part", range(1))])["task"]
    assert found.scores == {"xnor": pytest.approx(2 / 3)}


def test_a_table_typed_with_another_length_is_another_table_with_more_methods_it_is_not(
    tasks,
) -> None:
    """The sweep that has the table's name decides, or else the one with most results."""
    short: Scores = {"fp32": {"cifar10": 0.2, "shapes": 0.1}, "siman": {"cifar10": 0.2}}
    other, more = tasks(short)._replace(name="other"), tasks(short)._replace(name="more")
    for result in other.results.values():
        result["epochs"] = 1
    track = overall([other, more, tasks()])["task"]
    assert track.sources == ["tasks_quick", "more"]
    assert track.lacking == {"adabin": ["shapes"], "siman": ["shapes"]}
    alone = overall([other, more._replace(results={})])["task"]
    assert alone.sources == ["other"]


def test_a_part_of_a_table_in_another_precision_belongs_to_it(tasks) -> None:
    """What the table's own sweep has not run; each part beside twins of its precision."""
    photographs = {"fp32": {"shapes": 0.8}, "xnor": {"shapes": 0.4}}
    rest = tasks(photographs)._replace(name="rest")
    for cell in rest.manifest["cells"]:
        cell["overrides"]["trainer.precision"] = "bf16-mixed"
    own = tasks(
        {"fp32": {"cifar10": 0.8, "shapes": None}, "xnor": {"cifar10": 0.4, "shapes": None}}
    )
    track = overall([own, rest])["task"]
    assert (track.sources, track.parts) == (["tasks_quick", "rest"], ["cifar10", "shapes"])
    assert track.scores == {"xnor": pytest.approx(0.5)}


def test_inference_is_of_the_bench_file_and_of_methods_with_results(tasks, make_speeds) -> None:
    """3 times faster, 1085048 / 61256 times smaller."""
    bench = Bench("bench/cpu.json", make_speeds())
    scores: Scores = {"fp32": {"cifar10": 0.9}, "adabin": {"cifar10": 0.9}}
    track = overall([tasks(scores)], bench)["inference"]
    expected = math.sqrt((3.0**2 + (1085048 / 61256) ** 2) / 2)
    assert track.scores == {"adabin": pytest.approx(expected)}
    assert track.sources == ["bench/cpu.json"]
    scores["xnor"] = scores.pop("adabin")
    assert "inference" not in overall([tasks(scores)], bench)
    assert overall([], bench) == {}


def test_a_corruption_that_costs_somebody_nothing_is_left_out_for_all(tasks) -> None:
    losses = {
        "xnor": {"fog": (0.4, 0.2), "snow": (0.2, 0.1), "jpeg": (0.0, 0.1)},
        "adabin": {"fog": (0.2, 0.2), "snow": (0.1, 0.1), "jpeg": (0.3, 0.1)},
    }
    track = overall([], losses=losses, tested=["a file"])["robustness"]
    assert track.scores == {"xnor": pytest.approx(0.5), "adabin": pytest.approx(1.0)}
    assert track.parts == ["fog", "snow"]
    assert "robustness" not in overall([tasks()])


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("resnet20", "CNN"),
        ("reactnet_a", "CNN"),
        ("vit_tiny_patch16_224", "Transformer"),
        ("timm/deit_tiny", "Transformer"),
        ("mixer_s32_224", "MLP"),
    ],
)
def test_kinds_of_networks(model: str, kind: str) -> None:
    assert kind_of(Row({"backbone": model})) == kind
    assert kind_of(Row({"backbone": "timm"}, {"backbone.name": model})) == kind
    assert kind_of(Row({"backbone": "timm"}, {"backbone.model": model})) == kind


def test_every_track_is_a_column_and_says_where_it_comes_from(tasks, column) -> None:
    table = table_of(overall([tasks()]), "quick")
    assert table.header == ["method", *(TITLES[name] for name in TRACKS)]
    assert column(table, "method") == ["xnor"]
    assert column(table, "learning task") == ["0.361"]
    for name in ("neural architecture", "corruption robustness", "hardware inference"):
        assert column(table, name) == [MISSING]
        (note,) = [note for note in table.notes if note.startswith(f"{name}:")]
        assert note.endswith("; not measured")
    (note,) = [note for note in table.notes if note.startswith("learning task:")]
    assert "verified: false" in note
    assert note.endswith("over cifar10, shapes; from tasks_quick")
    assert f"learning task {MISSING}: adabin lacks shapes" in table.notes


@pytest.fixture
def where(tmp_path: Path, tasks, write, hexed) -> Where:
    """The sweep of tasks on disk, at scale=quick."""
    sweep = tasks()
    for cell in sweep.manifest["cells"]:
        cell["fingerprint"] = hexed(cell["run"])
    for place, (run, result) in enumerate(sweep.results.items()):
        result["fingerprint"] = hexed(run)
        write(tmp_path / "runs" / f"{run}.json", result | {"name": f"run{place}"})
    path = write(tmp_path / "sweeps" / "tasks_quick.json", sweep.manifest)
    made = tmp_path / "made"
    return Where([path], tmp_path / "runs", f"{made}/{{}}_table", f"{made}/{{}}_dots")


def test_the_page_is_written_with_its_figure(where: Where) -> None:
    written = page(where, None, None, ("svg", "png"))
    assert written is not None
    assert written[0].name == "quick_table"
    names = sorted(path.name for path in written[0].parent.iterdir())
    assert names == [f"quick_dots.{end}" for end in ("png", "svg")] + [
        f"quick_table.{end}" for end in ("csv", "md", "tex")
    ]
    told = re.findall("<!-- (.*?) -->", (written[0].parent / "quick_dots.svg").read_text())
    assert "xnor" in told
    assert "0.361" in told
    assert told.count(MISSING) == 4  # of six tracks two were measured


def test_another_scale_has_nothing_and_a_damaged_sweep_costs_itself_alone(
    where: Where, capsys: pytest.CaptureFixture[str]
) -> None:
    assert page(where, None, "full", ("png",)) is None
    file = next(where.runs.glob("*xnor*shapes*"))
    whole = json.loads(file.read_text())
    for part in ({"ended": "limit_train_batches=3"}, {"headline": "val/acc"}):
        file.write_text(json.dumps(whole | part))
        (sweep,) = sweeps_of(read_manifests(where.manifests), where.runs)
        assert len(sweep.results) == 4  # of five
    broken = where.manifests[0].with_name("broken.json")
    broken.write_text("{")
    assert page(where._replace(manifests=[broken, *where.manifests]), None, None, ("png",))
    assert "left out: " in capsys.readouterr().err
    assert "at scale=full" in str(nothing("full"))
    assert str(nothing("ful")).endswith("at scale=ful; scales are full, quick, demo")
    assert "\n" not in str(nothing(None))


def test_methods_stand_in_the_order_of_the_tracks(tasks) -> None:
    scores = TASKS | {"adabin": {"cifar10": 0.5, "shapes": 0.5}}
    assert methods_of(overall([tasks(scores)])) == ["xnor", "adabin"]


def test_the_command(where: Where, tmp_path: Path) -> None:
    """Scores of what is committed; a mistake is one line, before anything is written."""

    def report(*words: str) -> Any:
        command = [sys.executable, str(ROOT / "src" / "report.py"), f"paths.root_dir={tmp_path}"]
        command += [f"paths.log_dir={tmp_path / 'logs'}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = report("scores")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: scores: no finished results of any track: train one")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
    for folder, files in (("sweeps", where.manifests), ("runs", where.runs.glob("*.json"))):
        (tmp_path / "results" / folder).mkdir(parents=True)
        for file in files:
            file.rename(tmp_path / "results" / folder / file.name)
    done = report("scores", "scale=quick", "format=svg")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/results/tables/overall_scores_quick.md\n"
    assert (tmp_path / "results" / "figures" / "overall_scores_quick.svg").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["report", "score"], "error: score: no word of report; type scores, or <key>=<value>"),
        (["report", "scores", "promote"], "error: promote: no word of report"),
    ],
)
def test_a_word_that_report_does_not_know(words: list[str], told: str) -> None:
    with pytest.raises(SystemExit, match=told):
        with_table(words)


def test_words_of_report_are_keys() -> None:
    typed = with_table(["report", "scores", "scale=demo", "table=it's", "format=png", "--cfg"])
    expected = ["scores=true", "of_scale='demo'", r"sweep='it\'s'", "format=png", "--cfg"]
    assert typed[1:] == expected
    assert with_table(["report", "--cfg", "job"]) == ["report", "--cfg", "job"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({"of_scale": "demo"}, "scale=demo: of scores alone"),
        ({"scores": True, "sweep": "x", "figure": "curves"}, "leave table=, figure= out"),
    ],
)
def test_what_has_no_meaning_beside_scores(typed: dict[str, Any], told: str) -> None:
    usual = dict.fromkeys(("sweep", "figure", "wandb", "promote", "of_scale")) | {"scores": False}
    with pytest.raises(ValueError, match=told):
        check_scores(OmegaConf.create(usual | typed))
    check_scores(OmegaConf.create(usual))
    check_scores(OmegaConf.create(usual | {"scores": True, "of_scale": "demo"}))
