"""Ends by a signal: the code, the one line, and what is left; each test is a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bnnbench.runs import signals

ROOT = Path(__file__).resolve().parents[2]
ENDING = ["INT", "TERM", "HUP", "USR1"]
# A main() that waits; what it does with a signal stands in its name.
BODY = """
import os, signal, sys, time
{before}
from bnnbench.runs import signals
with signals.ending():
    print("ready", flush=True)
    signals.at("in epoch 1 of 2")
    {body}
print("the end")
"""
SLEEP = "time.sleep(30)"


def started(body: str, before: str = "", **extra: str) -> subprocess.Popen[str]:
    """The process, in a group of its own, once it waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", BODY.format(body=body, before=before)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | extra,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=defaults,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process


def defaults() -> None:
    """What a shell gives its commands, and a test in the background may lack."""
    for name in ENDING:
        signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_DFL)


def ended(process: subprocess.Popen[str], *names: str, between: float = 0.8) -> tuple[int, str]:
    """Exit code as Python sees it and stderr, after the signals."""
    for name in names:
        process.send_signal(signal.Signals[f"SIG{name}"])
        time.sleep(between if len(names) > 1 else 0)
    _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr


@pytest.mark.parametrize("name", ENDING)
def test_the_code_is_the_signals_and_one_line_says_where(name: str) -> None:
    line = f"ended by SIG{name} in epoch 1 of 2; the same command goes on\n"
    assert ended(started(SLEEP), name) == (-signal.Signals[f"SIG{name}"], line)


def test_a_shell_sees_128_and_the_number() -> None:
    program = "import os; from bnnbench.runs import signals\n"
    program += "with signals.ending(): os.kill(os.getpid(), 15)"
    shell = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "$PROGRAM"; echo $?'],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PROGRAM": program},
        capture_output=True,
        text=True,
    )
    assert shell.stdout == "143\n"


def test_what_was_begun_is_tidied_up_and_a_second_signal_waits_for_nothing() -> None:
    tidies = "try: time.sleep(30)\n    finally: time.sleep({}); print('tidy', flush=True)"
    process = started(tidies.format(1))
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (-signal.SIGTERM, "tidy\n")
    start = time.monotonic()
    code, stderr = ended(started(tidies.format(20)), "TERM", "INT")
    assert (code, stderr) == (-signal.SIGINT, "")
    assert time.monotonic() - start < 10


def test_timeout_sends_its_signal_twice_and_is_one() -> None:
    code, stderr = ended(started("try: time.sleep(30)\n    finally: time.sleep(1)"), "TERM")
    process = started("try: time.sleep(30)\n    finally: time.sleep(1)")
    assert ended(process, "TERM", "TERM", between=0.1) == (code, stderr)
    assert len(stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "body",
    [
        "try: time.sleep(30)\n    except BaseException: raise ValueError('of the teardown')",
        "try: time.sleep(30)\n    except BaseException: sys.exit(1)",
        "try: time.sleep(30)\n    except BaseException: pass\n    time.sleep(.1); signals.check()",
    ],
    ids=["error", "exit", "lost"],
)
def test_what_a_signal_leads_to_is_its_end(body: str) -> None:
    code, stderr = ended(started(body), "TERM")
    assert code == -signal.SIGTERM
    assert stderr == "ended by SIGTERM in epoch 1 of 2; the same command goes on\n"


def test_what_finishes_all_the_same_has_not_been_ended() -> None:
    """A signal is lost where Python cannot raise, as in a finaliser."""
    process = started("try: time.sleep(30)\n    except BaseException: pass")
    process.terminate()
    assert process.communicate(timeout=30) == ("the end\n", "")
    assert process.returncode == 0


def test_ignored_and_handled_signals_stay_so() -> None:
    """`nohup` ignores SIGHUP; a cluster's launcher has handlers that put a job into the queue."""
    before = "signal.signal(1, signal.SIG_IGN); signal.signal(10, lambda *_: print('own'))"
    process = started("time.sleep(1)", before)
    for signum in (signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (0, "own\nthe end\n", "")


@pytest.mark.parametrize(
    "hides", ["raise ValueError('of the teardown')", "pass"], ids=["in an error", "nowhere"]
)
def test_a_job_that_is_queued_again_has_not_failed(tmp_path: Path, hides: str) -> None:
    """A cluster's handler leaves by SystemExit, which may hide where Python cannot raise it."""
    before = "signal.signal(12, lambda *_: sys.exit(7))\nfrom pathlib import Path"
    body = f"""from bnnbench.runs.run import recorded_failure
    signals.answered_here_alone("")
    with recorded_failure(Path({str(tmp_path)!r})):
        try: print("waits", flush=True), time.sleep(30)
        except BaseException: {hides}
        signals.check()"""
    process = started(body, before)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    assert ended(process, "USR2") == (7, "")
    assert not list(tmp_path.iterdir())


SAVES = """import torch; from itertools import count
    from bnnbench.runs.checkpoint_io import WholeCheckpoints, _Watched
    signals.answered_here_alone("")
    write = _Watched.write
    def signalled(self, part):
        if next(calls) == 3: os.kill(os.getpid(), {sent})
        return write(self, part)
    _Watched.write, calls = signalled, count()
    WholeCheckpoints().save_checkpoint({{"w": torch.ones(1000), "v": torch.ones(9)}}, {file!r})"""


@pytest.mark.parametrize("name", ["TERM", "USR2"])
def test_a_signal_waits_for_the_checkpoint_that_is_being_written(tmp_path: Path, name: str) -> None:
    """torch would hide it in an error of its own, or write on into the closed file and abort."""
    import torch

    file, sent = tmp_path / "last.ckpt", signal.Signals[f"SIG{name}"]
    body = SAVES.format(sent=int(sent), file=str(file))
    code, stderr = ended(started(body, "signal.signal(12, lambda *_: sys.exit(7))"))
    line = "ended by SIGTERM in epoch 1 of 2; the same command goes on\n"
    assert (code, stderr) == ((7, "") if name == "USR2" else (-sent, line))
    assert torch.load(file)["v"].sum() == 9
    assert list(tmp_path.iterdir()) == [file]


def test_a_forked_child_leaves_the_end_to_its_parent() -> None:
    body = "pid = os.fork()\n    if not pid: time.sleep(2); os._exit(7)\n    "
    body += "print(os.waitpid(pid, 0)[1] >> 8)"
    process = started(body)
    os.killpg(process.pid, signal.SIGINT)
    code, stderr = ended(process)
    assert (code, len(stderr.splitlines())) == (-signal.SIGINT, 1)
    body = "pid = os.fork()\n    if not pid: time.sleep(20)\n    "
    body += "time.sleep(.2); os.kill(pid, 15); print(os.waitpid(pid, 0)[1])"
    assert started(body).communicate(timeout=10)[0] == "15\nthe end\n"  # but it can be ended


def test_a_process_of_lightnings_leaves_it_to_the_first() -> None:
    process = started("time.sleep(1)", LOCAL_RANK="1")
    for name in ENDING:
        process.send_signal(signal.Signals[f"SIG{name}"])
    assert process.communicate(timeout=30) == ("the end\n", "")
    code, stderr = ended(started(SLEEP, SLURM_PROCID="1"), "TERM")
    assert (code, stderr) == (-signal.SIGTERM, "")  # the first one tells


def test_signals_need_no_torch() -> None:
    program = "import sys; from bnnbench.runs import signals; from bnnbench.records import lock"
    program += "; assert not {'torch', 'lightning', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


RUN = ["quantizer=xnor", "backbone=resnet20", "trainer.accelerator=cpu", "logger=none"]
RUN += ["+trainer.limit_train_batches=2"]


def train(logs: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "src" / "train.py"), *arguments, *RUN, f"paths.log_dir={logs}"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        preexec_fn=defaults,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return stdout, stderr


def wait_for(found: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("name", ENDING)
def test_a_run_is_cut_by_every_signal_and_goes_on(tmp_path: Path, name: str) -> None:
    run = train(tmp_path, "trainer.max_epochs=30")
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/last.ckpt")), run)
    code, stderr = ended(run, name)
    (folder,) = tmp_path.glob("runs/*")
    assert code == -signal.Signals[f"SIG{name}"]
    last = stderr.splitlines()[-1]
    assert last.startswith(f"ended by SIG{name} in epoch ")
    assert last.endswith(f" of 30 of {folder.name}; the same command goes on")
    assert "Traceback" not in stderr
    assert not {"error.txt", "result.json", "lock"} & {file.name for file in folder.iterdir()}
    if name == "TERM":
        finish(train(tmp_path, "trainer.max_epochs=30"))
        history = json.loads((folder / "result.json").read_text())["history"]
        assert history["epoch"] == list(range(30))


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_processes_of_a_run_end_with_its_first(tmp_path: Path) -> None:
    two = ("trainer=ddp", "trainer.devices=2", "trainer.sync_batchnorm=false")
    run = train(tmp_path, "trainer.max_epochs=300", *two)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/last.ckpt")), run)
    children = Path(f"/proc/{run.pid}/task").glob("*/children")
    (child,) = {pid for file in children for pid in file.read_text().split()}
    code, stderr = ended(run, "TERM")
    assert code == -signal.SIGTERM
    assert stderr.count("ended by SIGTERM in epoch ") == 1
    assert "Traceback" not in stderr
    end = time.monotonic() + 5
    while alive(child):
        assert time.monotonic() < end
    assert not list(tmp_path.glob("runs/*/error.txt"))


def test_an_error_that_a_signal_led_to_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is left of a group says that the others are gone."""
    from bnnbench.runs.run import recorded_failure

    monkeypatch.setattr(signals, "_state", signals._State(signum=signal.SIGHUP))
    with pytest.raises(signals.Ended, match="SIGHUP"), recorded_failure(tmp_path):
        raise RuntimeError("Connection closed by peer")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_second_process_of_a_run_waits_and_takes_its_result(tmp_path: Path, force: bool) -> None:
    first = train(tmp_path, "trainer.max_epochs=20")
    wait_for(lambda: list(tmp_path.glob("runs/*/lock")), first)
    second = train(tmp_path, "trainer.max_epochs=20", *(["force=true"] if force else []))
    ((_, one), (stdout, two)) = finish(first), finish(second)
    (folder,) = tmp_path.glob("runs/*")
    assert f"{folder} is held by process {first.pid} on " in two
    assert "held by" not in one
    assert (", trained before; " in stdout) != force
    assert not (folder / "error.txt").exists()
    assert not (folder / "lock").exists()
    epochs = json.loads((folder / "result.json").read_text())["history"]["epoch"]
    assert epochs == list(range(20))


def test_ctrl_c_ends_waiting(tmp_path: Path) -> None:
    first = train(tmp_path, "trainer.max_epochs=300")
    wait_for(lambda: list(tmp_path.glob("runs/*/lock")), first)
    second = train(tmp_path, "trainer.max_epochs=300")
    assert second.stderr is not None
    assert "is held by process" in second.stderr.readline()
    code, stderr = ended(second, "INT")
    (folder,) = tmp_path.glob("runs/*")
    line = f"ended by SIGINT while it waited for {folder}; the same command goes on\n"
    assert (code, stderr) == (-signal.SIGINT, line)
    assert first.poll() is None  # the other one is left alone
    other = train(tmp_path, "trainer.max_epochs=5", f"hydra.run.dir={folder}")
    _, stderr = other.communicate(timeout=60)
    assert other.returncode == 1
    assert re.search(f"another run.* process {first.pid} on .*choose another folder", stderr)
    assert ended(first, "TERM")[0] == -signal.SIGTERM


def test_two_sweeps_at_once_train_each_run_once(tmp_path: Path) -> None:
    arguments = ("-m", "seed=0,1,2", "trainer.max_epochs=3", "hydra/launcher=basic")
    both = [train(tmp_path, *arguments) for _ in range(2)]
    said = [finish(process) for process in both]
    assert sum(stdout.count(", trained before; ") for stdout, _ in said) == 3
    assert any("is held by process" in stderr for _, stderr in said)
    assert all("Written to " in stdout for stdout, _ in said)
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 3
    assert not list(tmp_path.glob("runs/*/error.txt"))
