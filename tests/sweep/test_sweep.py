"""The sweeper as a user meets it: a command, its table, a second call after what went wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import joblib
import pytest

from bnnbench.records.lock import locked
from bnnbench.sweep.devices import side_by_side

App = Any  # the fixture's class stands in conftest.py, which is not to be imported
THREE = ("-m", "quantizer=adabin,xnor,fp32", "backbone=resnet20")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
BASIC = "hydra/launcher=basic"  # starts fastest, where the launcher does not matter
CPU = "trainer.accelerator=cpu"
ROWS = ["| adabin | finished |", "| xnor | finished |", "| fp32 | finished |"]


def table(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stdout.splitlines() if line.startswith("|")]


@contextmanager
def started(app: App, *arguments: str, **extra: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, as a shell starts it."""
    process = subprocess.Popen(
        app.command(*arguments),
        env=app.environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        # Tests that run in the background ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: [signal.signal(signum, signal.SIG_DFL) for signum in ENDING],
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return status != "Z"


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for file in children for child in file.read_text().split()]
    return [p for p in found if b"popen_loky" in Path(f"/proc/{p}/cmdline").read_bytes()]


def test_a_sweep_ends_in_its_table_and_a_second_call_runs_nothing(app: App) -> None:
    first = app.run(*THREE, CPU, BNNBENCH_WORKERS="")
    assert first.returncode == 0, first.stderr
    assert table(first) == ROWS
    assert first.stdout.splitlines()[-1].startswith("Written to ")
    name = app.manifest()["name"]
    assert sorted(app.executed()) == [f"{q} 0 {name}" for q in ("adabin", "fp32", "xnor")]
    results = [json.loads(file.read_text()) for file in app.results()]
    assert {r["versions"]["threads"] for r in results} == {"1"}  # as many workers as cores, or more
    assert {r["versions"]["jobs"] for r in results} == {
        str(min(3, side_by_side(3, joblib.cpu_count())))
    }
    assert {tuple(r["overrides"][1:]) for r in results} == {("backbone=resnet20", CPU)}
    assert "chatter" not in first.stdout + first.stderr
    assert all("chatter" in (f.parent / "output.log").read_text() for f in app.results())

    second = app.run(*THREE)
    assert (second.returncode, table(second), len(app.executed())) == (0, ROWS, 3)
    assert "3 runs are finished, 0 to run" in second.stderr
    # A default spelled out, another order: still the same runs, and only the new one is trained.
    third = app.run("-m", "trainer.max_epochs=10", "backbone=resnet20", "quantizer=xnor,adabin")
    assert (third.returncode, len(app.executed())) == (0, 3)
    app.run("-m", BASIC, "backbone=resnet20", "quantizer=xnor,adabin", "seed=0,1", "force=false")
    assert sorted(line.split()[:2] for line in app.executed()[3:]) == [
        ["adabin", "1"],
        ["xnor", "1"],
    ]
    app.run(*THREE, BASIC, "force=true")
    assert len(app.executed()) == 8


def test_the_manifest_is_the_sweep(app: App) -> None:
    app.run("-m", BASIC, "quantizer=adabin,fp32", "seed=0,1", "tags=[mine]", "force=true")
    record = app.manifest()
    assert (record["schema"], record["table"], record["scale"]) == (2, None, None)
    assert record["swept"] == ["quantizer"]
    overrides = [cell["overrides"] for cell in record["cells"]]
    expected = [{"quantizer": q, "seed": s} for q in ("adabin", "fp32") for s in "01"]
    assert overrides == expected
    assert record["name"].startswith("adabin-fp32_seed0-1_")
    assert "quantizer=adabin,fp32 seed=0,1" in record["command"]
    runs = {file.parent.name: json.loads(file.read_text()) for file in app.results()}
    assert {cell["run"]: cell["fingerprint"] for cell in record["cells"]} == {
        name: result["fingerprint"] for name, result in runs.items()
    }


def test_a_table_sweeps_without_m_at_its_scale(app: App) -> None:
    run = app.run("table=small", "scale=full", "seed=3", BASIC, "logger=wandb")
    assert run.returncode == 0, run.stderr
    assert table(run) == [f"| {q} | finished |" for q in ("fp32", "adabin", "xnor")]
    record = app.manifest()
    assert record["name"].startswith("small_full_seed3_")
    assert record["scale"] == "full"
    assert record["scale_notes"] is None
    assert record["table"]["title"] == "a table"
    assert record["swept"] == ["backbone", "quantizer"]
    (xnor,) = (f for f in app.results() if "xnor" in f.parent.name)
    assert sorted(json.loads(xnor.read_text())["overrides"]) == [
        "backbone=resnet20",
        "dataset=cifar10",
        "logger=wandb",
        "quantizer=xnor",
        "seed=3",
        "trainer.max_epochs=7",
    ]
    summary = json.loads((app.logs / "summary.json").read_text())
    assert (summary["name"], summary["table"].splitlines()) == (record["name"], table(run))


@pytest.mark.parametrize(("launcher", "logged"), [("workers", True), ("basic", False)])
def test_one_worker_logs_as_many_do(app: App, launcher: str, logged: bool) -> None:
    """joblib runs a single worker's jobs in the sweep's own process."""
    run = app.run("-m", "quantizer=xnor,fp32", f"hydra/launcher={launcher}", BNNBENCH_WORKERS="1")
    assert run.returncode == 0, run.stderr
    assert ("chatter" not in run.stdout) == logged
    assert len(list(app.logs.glob("runs/*/output.log"))) == 2 * logged
    assert run.stderr.splitlines()[-1].startswith("[2/2 done] elapsed ")


def test_cells_that_were_told_apart_stay_apart(app: App) -> None:
    """Also where they turn out to be one run, which is trained once."""
    run = app.run("-m", BASIC, "quantizer=adabin", "backbone.shortcut=conv,block", "seed=0,0")
    assert len(table(run)) == len(app.executed()) == len(app.manifest()["cells"]) == 2
    again = app.run(
        "-m", BASIC, "quantizer=adabin", "trainer.max_epochs=10,${recipe.epochs.digits}", "seed=1"
    )
    assert (len(table(again)), len(app.executed())) == (2, 3)
    workers = app.run("-m", BASIC, "quantizer=xnor", "dataset.workers=0,4")
    assert (len(table(workers)), len(app.executed())) == (2, 4)
    (name,) = (f.parent.name for f in app.logs.glob("sweeps/*workers0-4*/sweep.json"))
    manifest = json.loads((app.logs / "sweeps" / name / "sweep.json").read_text())
    assert manifest["swept"] == ["dataset.workers"]


def test_a_reused_result_says_so_and_reaches_a_logger_once(app: App) -> None:
    app.run("-m", BASIC, "quantizer=adabin,xnor")
    run = app.run("-m", BASIC, "quantizer=adabin,xnor,fp32", "logger=wandb")
    adabin, _, xnor = (file.parent.name for file in app.results())
    for name in (adabin, xnor):
        assert f"reused: {name}: 50.00 %, trained before" in run.stderr
    replayed = app.logs / "replayed.txt"
    assert replayed.read_text().splitlines() == [f"wandb {adabin} 2", f"wandb {xnor} 2"]
    app.run("-m", BASIC, "quantizer=adabin,xnor", "logger=wandb")
    assert len(replayed.read_text().splitlines()) == 2


def test_other_data_of_the_same_name_are_another_run(app: App, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "same")]
    for folder, content in zip(folders, ("a", "b", "a"), strict=True):
        folder.mkdir()
        (folder / "data.txt").write_text(content)
    one, two, same = (f"paths.data_dir={folder}" for folder in folders)
    app.run("-m", BASIC, "quantizer=xnor", one)
    (first,) = (file.parent.name for file in app.results())
    assert app.run("-m", BASIC, "quantizer=xnor", same).returncode == 0
    assert len(app.executed()) == 1
    other = app.run("-m", BASIC, "quantizer=xnor", two)
    assert table(other) == ["| xnor | finished |"]
    names = [file.parent.name for file in app.results()]
    assert names[0] == first
    assert names[1].startswith(f"{first}_data")
    assert f"{first} was trained on other data" in other.stderr
    for data in (one, two, "paths.data_dir=/nowhere"):  # the last: nothing there to contradict
        app.run("-m", BASIC, "quantizer=xnor", data)
    assert len(app.executed()) == 2


def test_one_sweep_over_two_data_folders_trains_both(app: App, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text(name)
    run = app.run("-m", BASIC, "quantizer=xnor", f"paths.data_dir={tmp_path}/a,{tmp_path}/b")
    assert table(run) == ["| xnor | finished |"] * 2
    assert len(app.executed()) == len({c["run"] for c in app.manifest()["cells"]}) == 2


def test_two_command_lines_of_a_table_have_a_table_each(app: App) -> None:
    for seed in ((), ("seed=5",), ("seed=0",)):
        assert app.run("table=small", BASIC, *seed).returncode == 0
    names = sorted(file.parent.name for file in app.logs.glob("sweeps/*/sweep.json"))
    assert len(names) == 2
    assert names[0] == "small_demo"
    assert names[1].startswith("small_demo_seed5_")


@pytest.mark.parametrize("launcher", ["workers", "basic"])
def test_a_failure_leaves_the_others_alone(app: App, launcher: str) -> None:
    """Whatever the exception: this one cannot be pickled, which would break a process pool."""
    arguments = ("-m", "quantizer=boom,adabin,xnor")
    run = app.run(*arguments, f"hydra/launcher={launcher}")
    assert run.returncode == 1
    assert table(run) == ["| boom | failed |", *ROWS[:2]]
    (error,) = app.logs.glob("runs/*/error.txt")
    assert "Traceback" in error.read_text()
    assert f"{error.parent.name}: Unpicklable: the loss is not finite" in run.stderr
    assert str(error) in run.stderr
    assert "1 of 3 runs failed" in run.stderr
    assert "Traceback" not in run.stderr
    assert "Traceback" in app.run(*arguments, BASIC, HYDRA_FULL_ERROR="1").stderr
    assert [line.split()[0] for line in app.executed()[3:]] == ["boom"]


def test_a_forced_sweep_that_fails_says_what_runs_again(app: App) -> None:
    """All of it: the same command forces those again that it has renewed."""
    run = app.run("-m", BASIC, "quantizer=boom,xnor", "force=true")
    told = run.stderr.splitlines()[-1]
    assert told.startswith("1 of 2 runs failed, 0 have no new result; the same command runs all")
    assert "without force=true it runs only those that have no result" in told
    app.run("-m", BASIC, "quantizer=boom,xnor", "force=true")
    app.run("-m", BASIC, "quantizer=boom,xnor")
    words = [line.split()[0] for line in app.executed()]
    assert words == ["boom", "xnor", "boom", "xnor", "boom"]


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ("-m quantizer=adabin,xnorr", ["xnorr", "adabin\n\tboom\n\tfp32\n\txnor"]),
        ("-m quantiser=adabin,xnor", ["'quantiser'", "Did you mean 'quantizer'?", "recipe, scale"]),
        ("-m quantizer=glob(zz*)", ["quantizer=glob(zz*): it stands for no value"]),
        ("-m seed=range(3,3) quantizer=xnor", ["seed=range(3,3): it stands for no value"]),
        ("-m seed=0,1 trainer.max_epoch=3", ["max_epochs'? Valid keys of trainer: accelerator"]),
        ("table=smal", ["smal", "none\n\tsmall"]),
        ("table=small scale=huge", ["huge", "demo\n\tfull"]),
        ("table=small,none", ["one table at one scale a call"]),
        ("table=small dataset=absent", ["dataset absent: put it into data/"]),
        ("-m seed=1,2 init_from=nowhere.ckpt", ["init_from=nowhere.ckpt: there is no such file"]),
        ("-m train=false seed=1,2", ["leave out -m"]),
        (
            "-m seed=1,2 hydra.run.dir=out",
            ["hydra.run.dir=out: a sweep", "paths.runs_dir=<folder>"],
        ),
        ("-m seed=1,2 hydra.sweep.dir=out", ["hydra.sweep.dir=out: a sweep"]),
        ("-m seed=1,2 hydra.sweep.subdir=x", ["hydra.sweep.subdir=x: a sweep"]),
        ("-m seed=1,2 paths.output_dir=out", ["paths.output_dir=out: a sweep"]),
        ("-m seed=1,2 hydra.sweep={dir:out,subdir:x}", ["a sweep gives each run"]),
        ("-m seed=1,2 paths.data_mark=x", ["paths.data_mark=x: a sweep"]),
        ("-m seed=1 paths.runs_dir=/tmp/a,/tmp/b", ["paths.runs_dir is one place a sweep"]),
        ("table=small paths.output_dir=out", ["paths.output_dir=out: a sweep"]),
        ("-m seed=1,2 paths.log_dir=/dev/null/logs", ["cannot write", "paths.log_dir=<folder>"]),
    ],
)
def test_a_mistake_is_told_before_the_first_job(
    app: App, arguments: str, messages: list[str]
) -> None:
    run = app.run(*arguments.split())
    assert run.returncode == 1
    for message in messages:
        assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert list(app.logs.iterdir()) == []


def test_a_damaged_result_stops_no_other_cell(app: App) -> None:
    app.run("-m", BASIC, "quantizer=adabin")
    file = app.results()[0]
    file.write_text('{"schema": 2, "fing')
    run = app.run("-m", BASIC, "quantizer=adabin,xnor")
    assert run.returncode == 1
    assert table(run) == ["| adabin | damaged |", "| xnor | finished |"]
    assert f"{file}: damaged" in run.stderr
    assert "delete the file to run it again" in run.stderr
    assert [line.split()[0] for line in app.executed()] == ["adabin", "xnor"]
    assert file.read_text() == '{"schema": 2, "fing'  # never written over


def test_a_bad_number_of_workers_is_told(app: App) -> None:
    run = app.run("-m", "seed=1,2", BNNBENCH_WORKERS="many")
    assert run.returncode == 1
    assert "BNNBENCH_WORKERS=many: give a whole number" in run.stderr
    assert app.executed() == []


@pytest.mark.parametrize("whole_tree", [True, False])
def test_a_sweep_killed_halfway_finishes_only_what_is_missing(app: App, whole_tree: bool) -> None:
    arguments = ("-m", "quantizer=adabin,xnor,fp32,boom")
    with started(app, *arguments, APP_SLOW="fp32,boom") as process:
        wait_for(lambda: len(app.results()) == 2 and len(app.executed()) == 4)
        workers = workers_of(process.pid)
        assert len(workers) == 2
        if whole_tree:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        wait_for(lambda: not any(map(alive, workers)))  # they do not outlive the sweep
    assert len(app.results()) == 2
    assert app.run(*arguments, BASIC).returncode == 1
    assert sorted(line.split()[0] for line in app.executed()[4:]) == ["boom", "fp32"]


@pytest.mark.parametrize("to_all", [True, False], ids=["group", "main"])
@pytest.mark.parametrize("launcher", ["workers", "basic"])
@pytest.mark.parametrize("signum", ENDING, ids=lambda signum: signum.name)
def test_a_signal_ends_a_sweep_that_shows_what_there_is_and_resumes(
    app: App, signum: signal.Signals, launcher: str, to_all: bool
) -> None:
    arguments = ("-m", "quantizer=adabin,xnor,fp32", f"hydra/launcher={launcher}")
    app.run("-m", BASIC, "quantizer=adabin")
    with started(app, *arguments, APP_SLOW="xnor,fp32") as process:
        wait_for(lambda: len(app.executed()) == (3 if launcher == "workers" else 2))
        workers = workers_of(process.pid)
        (os.killpg if to_all else os.kill)(process.pid, signum)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == -signum
    wait_for(lambda: not any(map(alive, workers)), 5)
    shown = ROWS[0] in stdout and "| xnor | interrupted |" in stdout
    assert shown == (signum == signal.SIGINT)
    last = stderr.splitlines()[-1]
    assert last.startswith(f"ended by {signum.name} in sweep adabin-xnor-fp32_")
    assert "0 of 3 runs failed, 2 have no result yet" in last
    assert last.endswith("the same command runs only these again and resumes what was cut")
    assert "Traceback" not in stdout + stderr
    assert list(app.logs.glob("runs/*/error.txt")) == []
    again = app.run("-m", "quantizer=adabin,xnor,fp32", BASIC)
    assert (again.returncode, table(again)) == (0, ROWS)


@pytest.mark.parametrize("place", ["preflight", "render"])
def test_a_signal_before_and_after_the_runs(app: App, place: str) -> None:
    with started(app, "-m", BASIC, "quantizer=adabin", APP_SLOW=place) as process:
        wait_for(lambda: (app.logs / place).exists())
        process.terminate()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    where = {"preflight": "before the first run", "render": "while the table"}[place]
    last = stderr.splitlines()[-1]
    assert last.startswith(f"ended by SIGTERM {where} of sweep adabin_")
    assert last.endswith("the same command goes on")
    assert "Traceback" not in stderr
    assert len(app.results()) == (place == "render")
    assert table(app.run("-m", BASIC, "quantizer=adabin")) == ROWS[:1]
    assert len(app.executed()) == 1


def test_a_second_signal_ends_a_sweep_at_once(app: App) -> None:
    with started(app, "-m", BASIC, "quantizer=xnor", APP_SLOW="xnor,render") as process:
        wait_for(app.executed)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: (app.logs / "render").exists())
        time.sleep(1)
        process.terminate()
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("launcher", ["workers", "basic"])
@pytest.mark.parametrize("later", [False, True], ids=["before", "meanwhile"])
def test_a_run_that_another_process_trains_comes_last(app: App, later: bool, launcher: str) -> None:
    """Whether it has begun before the sweep or while that was at another run."""
    app.run("-m", BASIC, "quantizer=xnor")
    (result,) = app.results()
    folder, go = result.parent, app.folder / "go"
    result.unlink()
    order = ("fp32", "xnor", "adabin") if later else ("xnor", "fp32", "adabin")
    arguments = ("-m", f"quantizer={','.join(order)}", f"hydra/launcher={launcher}")
    held = ExitStack()

    def take() -> None:
        held.enter_context(locked(folder, "a" * 64))
        (folder / "worker.json").write_text("the other's")

    if not later:
        take()
    with started(app, *arguments, APP_UNTIL=str(go), BNNBENCH_WORKERS="1") as process:
        wait_for(lambda: len(app.executed()) == 2)
        if later:
            take()
        go.touch()
        said = iter(process.stderr.readline, "")
        who = f"{folder.name} is held by process {os.getpid()} on "
        assert any(who in line and "waiting until" in line for line in said)
        assert [line.split()[0] for line in app.executed()] == ["xnor", "fp32", "adabin"]
        assert (folder / "worker.json").read_text() == "the other's"
        held.close()
        stdout, _ = process.communicate(timeout=60)
    assert [line.split()[0] for line in app.executed()][3:] == ["xnor"]
    assert process.returncode == 0
    rows = [line for line in stdout.splitlines() if line.startswith("|")]
    assert rows == [f"| {quantizer} | finished |" for quantizer in order]


def test_a_job_that_a_clusters_launcher_has_put_into_the_queue_again_has_not_failed(
    app: App,
) -> None:
    """Submitit's handler of SLURM's signal exits the process once it has done so."""
    arguments = ("-m", BASIC, "quantizer=xnor")
    app.run(*arguments, APP_QUEUED="xnor", SUBMITIT_EXECUTOR="slurm")
    assert len(app.executed()) == 1
    assert not list(app.logs.glob("runs/*/error.txt"))
    run = app.run(*arguments, APP_EXIT="xnor", SUBMITIT_EXECUTOR="slurm")
    assert "SystemExit" in run.stderr
    assert len(list(app.logs.glob("runs/*/error.txt"))) == 1


def test_what_is_left_of_workers_is_cleared_without_a_word() -> None:
    """The process that clears it outlives the sweep: its words would follow the last line."""
    code = "from hydra_plugins.bnnbench_sweeper._job import start_tracker as start\n"
    code += "from joblib.externals.loky.backend import resource_tracker\n"
    code += "start(); resource_tracker.register('/gone', 'file')"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
