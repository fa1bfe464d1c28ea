"""What a table at a real scale will take, told before its first run; asked for in a terminal."""

import sys
from collections.abc import Sequence

from bnnbench.cores import cores
from bnnbench.records.gpus import visible_gpus
from bnnbench.sweep import timing
from bnnbench.sweep.devices import is_local, jobs_beside, jobs_together, threads_each
from bnnbench.sweep.hours import estimate, line

from ._plan import Planned, Sweep

ASK_ABOVE = 3600.0  # seconds of a sweep that somebody at a terminal is asked for
DECLINED = 130  # exit code, as of Ctrl-C


def told(sweep: Sweep, pending: Sequence[Planned], images: dict[str, int | None]) -> None:
    """Estimate what a table takes and, in a terminal, ask whether to start where that is long.

    Args:
        sweep: of which nothing has been written yet.
        pending: what it will train.
        images: that are trained on, by the kind of run.

    Raises:
        SystemExit: somebody said no.
    """
    trained = [planned for planned in pending if planned.cfg.trainer.get("max_epochs") != 0]
    if sweep.manifest["table"] is None or sweep.manifest["scale"] == "demo" or not trained:
        return
    config = sweep.config
    if not is_local(config):
        _say("no estimate of its hours: the runs are trained on other machines than this one")
        return
    _say(f"timing a few training steps, for {timing.MOST_S:.0f} s at most")
    cells = [(p.cfg, images.get(p.kind), sweep.runs_dir / p.cell.run) for p in trained]
    try:
        beside = jobs_beside(config, len(pending))
        hours = estimate(*timing.timed(cells, threads_each(config, beside)))
    except Exception as error:  # runs do not depend on it
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        _say(f"no estimate of its hours: {why}")
        return
    together = jobs_together(config, len(pending)), len(visible_gpus()), cores()
    _say(line(hours, *together))
    if _somebody_is_there() and hours.wall(*together)[1] > ASK_ABOVE and not _agreed():
        _say("nothing was started; the same command with < /dev/null starts without a question")
        raise SystemExit(DECLINED)


def _somebody_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _agreed() -> bool:
    print("start? [Y/n] ", end="", file=sys.stderr, flush=True)
    while (answer := sys.stdin.readline()).strip().lower() not in ("", "y", "yes", "n", "no"):
        print("y or n? ", end="", file=sys.stderr, flush=True)
    if not answer:  # the end of input
        print(file=sys.stderr)
    return answer.strip().lower() in ("", "y", "yes") and answer != ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
