"""Tables and figures from folders of runs; the report script end to end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bnnbench.records.provenance import source_hash
from bnnbench.report.render import collect, render

ROOT = Path(__file__).parents[2]
WEIGHTS = ("kernels", "layers", "binarized")
QUANTIZER = {"weight": {"_target_": "bnnbench.quantizers.bnn.BNNWeight"}}


@pytest.fixture
def sweep(tmp_path, make_manifest, make_result, write):
    """A sweep of three on disk: finished, failed, and one with a result of another config."""
    cells = ["quantizer=bnn", "quantizer=xnor", "quantizer=irnet"]
    manifest = make_manifest(*cells)
    config = {"config": {"quantizer": QUANTIZER}, "source_hash": source_hash(QUANTIZER)}
    result = make_result("bnn", fingerprint=cells[0], **config)
    write(tmp_path / "logs/runs/quantizer=bnn/result.json", result)
    failed = tmp_path / "logs/runs/quantizer=xnor/error.txt"
    failed.parent.mkdir()
    failed.write_text("Traceback\nValueError: no such thing\n")
    write(tmp_path / "logs/runs/quantizer=irnet/result.json", make_result(fingerprint="another"))
    return write(tmp_path / "logs/sweeps/a_sweep/sweep.json", manifest)


def test_renders_next_to_the_manifest(sweep: Path, column) -> None:
    runs, out = sweep.parents[2] / "runs", sweep.parent
    table = render(sweep, [runs], out, ROOT / "results" / "published")
    assert column(table, "accuracy") == ["90.00", "failed", "\N{EN DASH}"]
    assert (out / "table.md").read_text() == table.markdown()
    assert (out / "table.csv").read_text() == table.csv()
    assert (out / "table.tex").read_text() == table.latex()
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "curves.svg").read_text().startswith("<?xml")
    assert not any((out / f"{name}.png").exists() for name in WEIGHTS)


def recorded() -> dict:
    """Statistics of one layer, all of whose weights are +-1."""
    ends = {"range": 1.0, "counts": [9, 9], "mean_abs": 1.0, "std_abs": 0.0, "kurtosis": 1.0}
    snapshots = [{"fraction": 1.0, "step": 2, "epoch": 1.0} | ends]
    values = {"binarized": [1.0], "mean_abs": [1.0], "kurtosis": [1.0]}
    layer = {"name": "conv", "index": 2, "snapshots": snapshots} | values
    return {"epochs": [1], "layers": [layer]}


def test_weights_are_drawn_where_a_result_has_them(sweep: Path, make_result, write) -> None:
    runs, out = sweep.parents[2] / "runs", sweep.parent
    file, fingerprint = runs / "quantizer=bnn/result.json", {"fingerprint": "quantizer=bnn"}
    write(file, make_result("bnn", statistics=recorded(), **fingerprint))
    render(sweep, [runs], out, ROOT / "results" / "published")
    drawn = {f"{name}.{suffix}" for name in ("curves", *WEIGHTS) for suffix in ("png", "svg")}
    tables = {"table.md", "table.csv", "table.tex", "sweep.json"}
    assert {path.name for path in out.iterdir()} == drawn | tables
    write(file, make_result("bnn", **fingerprint))  # what can no longer be drawn goes
    render(sweep, [runs], out, ROOT / "results" / "published")
    assert {path.name for path in out.iterdir()} == {"curves.png", "curves.svg"} | tables


def test_finds_results_in_flat_folders_too(tmp_path, make_manifest, make_result, write) -> None:
    write(tmp_path / "quantizer=bnn.json", make_result("bnn", fingerprint="quantizer=bnn"))
    results, failures = collect(make_manifest("quantizer=bnn"), [tmp_path / "none", tmp_path])
    assert set(results) == {"quantizer=bnn"}
    assert failures == {}


def test_a_result_older_than_its_code_is_marked(sweep: Path, make_result, write, column) -> None:
    runs = sweep.parents[2] / "runs"
    gone = {"weight": {"_target_": "bnnbench.quantizers.removed.Weight"}}
    for config, accuracy in ((QUANTIZER, "90.00*"), (gone, "90.00*"), (None, "90.00")):
        entries = {"fingerprint": "quantizer=bnn", "config": {"quantizer": config}}
        write(runs / "quantizer=bnn/result.json", make_result("bnn", **entries))
        table = render(sweep, [runs], sweep.parent, ROOT / "results" / "published")
        assert column(table, "accuracy")[0] == accuracy


def test_an_emptied_results_folder_costs_the_published_column_only(
    sweep: Path, tmp_path: Path, write, column
) -> None:
    manifest = json.loads(sweep.read_text()) | {"table": {"published": "adabin_cifar10"}}
    write(sweep, manifest)
    runs = sweep.parents[2] / "runs"
    table = render(sweep, [runs], sweep.parent, tmp_path / "results" / "published")
    assert column(table, "accuracy")[0] == "90.00"
    assert any("adabin_cifar10.yaml" in note for note in table.notes)
    manifest["table"]["published"] = "mistyped"
    write(sweep, manifest)
    with pytest.raises(FileNotFoundError, match="adabin_cifar10"):
        render(sweep, [runs], sweep.parent, ROOT / "results" / "published")


@pytest.mark.parametrize("text", ['{"schema": 1', '{"schema": 99}', "[]"])
def test_unusable_files_are_named(sweep: Path, text: str) -> None:
    result = sweep.parents[2] / "runs" / "quantizer=bnn" / "result.json"
    result.write_text(text)
    with pytest.raises(ValueError, match=r"quantizer=bnn/result\.json (is damaged|has schema)"):
        render(sweep, [result.parents[1]], sweep.parent, ROOT / "results" / "published")


def test_imports_lightly() -> None:
    code = (
        "import sys, bnnbench.report.render, bnnbench.report.promote\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


def report(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "src" / "report.py"), f"paths.root_dir={root}"]
    return subprocess.run(
        [*command, *overrides], capture_output=True, text=True, cwd=root, check=False
    )


def test_the_script_promotes_and_renders_everything(sweep: Path, tmp_path: Path, write) -> None:
    file = sweep.parents[2] / "runs" / "quantizer=bnn" / "result.json"
    write(file, json.loads(file.read_text()) | {"statistics": recorded()})
    done = report(tmp_path, "promote=a_sweep")
    assert done.returncode == 0, done.stderr
    assert "promoted a_sweep: 1 results" in done.stdout
    assert (sweep.parent / "table.md").is_file()
    files = {str(p.relative_to(tmp_path)) for p in (tmp_path / "results").rglob("*.*")}
    rendered = {f"results/tables/a_sweep.{suffix}" for suffix in ("md", "csv", "tex")}
    assert files == rendered | {
        "results/tables/index.md",
        "results/figures/a_sweep.png",
        *(f"results/figures/a_sweep_{name}.png" for name in WEIGHTS),
        "results/sweeps/a_sweep.json",
        "results/runs/quantizer=bnn.json",
    }
    index = (tmp_path / "results/tables/index.md").read_text()
    assert "- [a_sweep](a_sweep.md)\n" in index
    assert list((tmp_path / "logs" / "report").iterdir()) == []  # Hydra leaves nothing behind
    assert {p.name for p in tmp_path.iterdir()} == {"logs", "results"}


def test_the_script_says_what_is_wrong(sweep: Path, tmp_path: Path) -> None:
    done = report(tmp_path, "promote=a_swep")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no sweep 'a_swep'")
    assert done.stderr.rstrip().endswith("there are: a_sweep")
