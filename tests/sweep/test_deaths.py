"""A worker that dies costs its own cell alone, and is named; under joblib's real workers."""

import signal
from typing import Any

import pytest

App = Any  # the fixture's class stands in conftest.py, which is not to be imported
FOUR = ("-m", "quantizer=xnor,adabin,fp32,boom", "backbone=resnet20")
THREE = ("-m", "quantizer=xnor,adabin,fp32", "backbone=resnet20")
BASIC = "hydra/launcher=basic"


def finished(app: App) -> set[str]:
    return {file.parent.name.split("_")[2] for file in app.results()}


def started(app: App, earlier: int = 0) -> list[str]:
    """Quantizers in the order in which their runs began."""
    return [line.split()[0] for line in app.executed()[earlier:]]


def error(app: App, quantizer: str) -> str:
    (file,) = app.logs.glob(f"runs/*_{quantizer}_*/error.txt")
    return file.read_text()


def test_the_others_finish_and_the_culprit_is_named_last(app: App) -> None:
    run = app.run(*FOUR, APP_KILL="xnor")
    assert run.returncode == 1, run.stderr
    assert finished(app) == {"adabin", "fp32"}
    assert "Traceback" in error(app, "boom")  # an ordinary failure beside it stays one
    text = error(app, "xnor")
    assert text.startswith("the process of this run died: killed by SIGKILL, as the kernel does")
    assert "smaller dataset.batch_size" in text
    assert len(text.splitlines()) == 1
    assert text.strip() in run.stderr
    assert "killed by SIGKILL: it goes last, alone" in run.stderr
    assert "2 of 4 runs failed, 0 have no result yet" in run.stderr
    assert "Traceback" not in run.stderr
    assert (started(app)[-1], started(app).count("xnor")) == ("xnor", 2)

    before = len(app.executed())
    again = app.run(*FOUR, APP_KILL="xnor")
    assert again.returncode == 1
    assert started(app, before) == ["boom", "xnor"]
    assert error(app, "xnor").startswith("the process of this run died")
    before = len(app.executed())
    healed = app.run(*THREE)
    assert (healed.returncode, started(app, before)) == (0, ["xnor"])
    assert not list(app.logs.glob("runs/*_xnor_*/error.txt"))
    assert not list(app.logs.glob("runs/*/worker.json"))


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("SIGSEGV", "killed by SIGSEGV, a crash in compiled code; output.log"),
        ("3", "ended with exit code 3; output.log may say why"),
        ("SIGTERM", "killed by SIGTERM; output.log may say why"),
    ],
)
def test_what_it_died_of_is_told(app: App, death: str, words: str) -> None:
    run = app.run(*THREE, APP_KILL="adabin", APP_DEATH=death)
    assert (run.returncode, finished(app)) == (1, {"xnor", "fp32"})
    assert error(app, "adabin").strip() == f"the process of this run died: {words}" + (
        " ends where it happened" if death == "SIGSEGV" else ""
    )


def test_two_culprits(app: App) -> None:
    run = app.run("-m", "quantizer=xnor,adabin,fp32", "seed=0,1", APP_KILL="xnor,adabin")
    assert run.returncode == 1
    assert finished(app) == {"fp32"}
    assert len(app.results()) == 2
    assert "4 of 6 runs failed, 0 have no result yet" in run.stderr


def test_only_one_cell_that_dies(app: App) -> None:
    run = app.run("-m", "quantizer=xnor", APP_KILL="xnor")
    assert (run.returncode, started(app)) == (1, ["xnor"] * 2)
    assert error(app, "xnor").startswith("the process of this run died")


def test_a_victim_finishes_alone(app: App) -> None:
    run = app.run(*THREE, APP_ONCE="xnor,fp32")
    assert run.returncode == 0, run.stderr
    assert finished(app) == {"xnor", "adabin", "fp32"}
    assert not list(app.logs.glob("runs/*/error.txt"))


def test_the_only_process_is_killed_and_the_next_call_leaves_its_cell_to_the_end(app: App) -> None:
    """With one worker joblib runs jobs in the sweep's own process, which dies with its cell."""
    run = app.run(*THREE, BNNBENCH_WORKERS="1", APP_KILL="xnor")
    assert (run.returncode, finished(app)) == (-signal.SIGKILL, set())
    again = app.run(*THREE, BNNBENCH_WORKERS="1", APP_KILL="xnor")
    assert (again.returncode, finished(app)) == (-signal.SIGKILL, {"adabin", "fp32"})
    assert app.run(*THREE, BASIC).returncode == 0
