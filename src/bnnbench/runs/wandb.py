"""wandb: online where its server answers, else offline; what breaks in it never ends a training."""

from __future__ import annotations

import configparser
import hashlib
import json
import netrc
import os
import re
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from bnnbench.records.store import write_json
from bnnbench.runs.run_log import About, Outcome, RunLog, Status

SERVER = "https://api.wandb.ai"
ANSWER_S = 5.0  # that the server has for its first answer
UPLOAD_S = 120  # that a finished run has for its last uploads; wandb itself waits for ever
KEY_LENGTH = 40  # of wandb's shortest keys
ID_LENGTH, TAG_LENGTH = 100, 64  # wandb takes 128 and 64 characters
EXIT_CODES: dict[Status, int] = {"success": 0, "failed": 1, "cut": 255}  # as wandb has of Ctrl-C
OFFLINE = {"silent": True}  # wandb's settings
LINKS = "links.json"  # in a run's folder
_GATEWAY = (502, 503, 504)  # a proxy answers in the server's place


class WandbLog(RunLog, WandbLogger):
    """Lightning's logger with an epoch as its axis; a run of the same id goes on in that run.

    What is logged at one step is one row. Its summary has the last value of every metric, and what
    a result tells beside them.
    """

    key = "wandb"

    def __init__(self, about: About, project: str, folder: str, group: str | None) -> None:
        tags = sorted({tag[:TAG_LENGTH] for tag in about.tags})
        settings = {"group": group, "job_type": about.job, "tags": tags}
        super().__init__(about.name, folder, id=run_id(about.name), project=project, **settings)
        self._wandb_init.pop("anonymous", None)  # of which wandb warns, whatever it is
        self._folder = Path(folder)
        self._row: dict[str, Any] = {}
        self._step: int | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run, begun when it is asked for first. ValueError where it cannot begin."""
        import wandb
        from wandb.errors import Error

        if self._experiment is None:
            try:
                self._experiment = wandb.init(**self._wandb_init, settings=terminal_settings())
            except Error as error:
                raise ValueError(
                    f"logger=wandb: {error}; WANDB_MODE=offline logs without its server"
                ) from error
            self._experiment.define_metric("epoch")
            self._experiment.define_metric("*", step_metric="epoch")
        return self._experiment

    def write_row(self, row: dict[str, Any], step: int) -> None:
        if step != self._step:
            self._flush()
        self._row |= row
        self._step = step
        if any(name.startswith("train/") for name in row):  # an epoch's last
            self._flush()

    def _flush(self) -> None:
        if self._row:
            self.experiment.log(self._row | {"trainer/global_step": self._step})
        self._row = {}

    def write_outcome(self, outcome: Outcome) -> None:
        import wandb

        self._flush()
        for (epoch, _), taken in groupby(outcome.histograms, lambda each: (each.epoch, each.step)):
            arrays = {each.name: (np.array(each.counts), np.array(each.edges)) for each in taken}
            row: dict[str, Any] = {n: wandb.Histogram(np_histogram=a) for n, a in arrays.items()}
            self.experiment.log(row | {"epoch": epoch})
        pictures = {f"pictures/{name}": wandb.Image(str(f)) for name, f in outcome.pictures.items()}
        if pictures:
            self.experiment.log(pictures | {"epoch": outcome.epochs})
        self.experiment.summary.update(outcome.summary)

    def end(self, status: Status) -> None:
        """Finish it: the next run of this process would write into it."""
        run = self._experiment
        if run is None:
            return
        try:
            if not self.broken:
                self._flush()
                remember_link(self._folder, run)
            run.finish(exit_code=EXIT_CODES[status])
        except Exception:
            leave_broken()
            raise
        if terminal_settings() == OFFLINE:
            where = f"`wandb sync {run.settings.sync_dir}`"
            print(f"wandb: logged offline; upload it with {where}", file=sys.stderr, flush=True)


def terminal_settings() -> dict[str, bool]:
    """What wandb leaves out on the terminal, where the user has not chosen that: all but addresses.

    Offline there are none, and ``WandbLog.end`` says where the run lies.
    """
    if any(_setting(name) is not None for name in ("silent", "quiet", "show_info")):
        return {}
    return OFFLINE if _setting("mode") in ("offline", "dryrun") else {"quiet": True}


def run_id(name: str) -> str:
    """Of the run of a name, always the same: ``ID_LENGTH`` characters at most that wandb takes."""
    text = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if text == name and len(text) <= ID_LENGTH:
        return text
    return f"{text[: ID_LENGTH - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def remember_link(folder: Path, run: Any) -> None:
    """Keep the address of a run that has one, of those that are online, for tables of its sweep."""
    if not run.offline and run.url:
        write_json(folder / LINKS, {"wandb": run.url})


def link_of(folder: Path) -> str | None:
    """The address of the run that lies in ``folder``; None where it is not known."""
    try:
        link = json.loads((folder / LINKS).read_text())["wandb"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return link if isinstance(link, str) and link.startswith(("https://", "http://")) else None


def leave_broken() -> None:
    """Forget a run that cannot be finished: the next one would ask its dead process."""
    import wandb

    with suppress(Exception):
        wandb.teardown()
    wandb.run = None
    os.environ.pop("WANDB_SERVICE", None)


def choose_mode(folder: Path | str) -> None:
    """Settle WANDB_MODE, for this process and all that it starts: online only if it can be.

    What the user has chosen stands. ``folder`` is where runs are kept that were not uploaded.

    Raises:
        ValueError: an address or a key that cannot be one.
    """
    if _setting("mode") is not None or "WANDB_DISABLED" in os.environ:
        return
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(UPLOAD_S))
    url = _setting("base_url") or SERVER
    host = _host(url)
    if not _has_key(host):
        os.environ["WANDB_MODE"] = "offline"
    elif (reason := unreachable(f"{url}/graphql", ANSWER_S)) is not None:
        os.environ["WANDB_MODE"] = "offline"
        rank_zero_only(print)(
            f"{host} cannot be reached ({reason}): logging offline; upload later with "
            f"`wandb sync {folder}/wandb/offline-run-*`"
        )
    else:
        os.environ["WANDB_MODE"] = "online"


def unreachable(url: str, seconds: float) -> str | None:
    """Why nothing answers there within ``seconds``, None where something does.

    It is asked through the proxies of the environment, as wandb asks; any answer of the server is
    one, also that the page is not for us.
    """
    found: list[str | None] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        found[0] = _refusal(url, seconds)

    # A thread of its own: no timeout of a socket ends the search for a name.
    thread = threading.Thread(target=ask, name="wandb-reachable", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0]


def _refusal(url: str, seconds: float) -> str | None:
    proxies = {**urllib.request.getproxies(), **_own_proxies()}
    through = urlsplit(proxies.get(urlsplit(url).scheme, ""))
    bypassed = urllib.request.proxy_bypass(urlsplit(url).hostname or "")
    try:
        if through.scheme.startswith("socks") and not bypassed:  # which urllib does not speak
            socket.create_connection((through.hostname, through.port or 1080), seconds).close()
            return None
        opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
        opener.open(url, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        return f"a proxy says {error.code} {error.reason}" if error.code in _GATEWAY else None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        known = isinstance(
            reason, ssl.SSLCertVerificationError
        )  # wandb has certificates of its own
        return None if known else str(reason) or _name(error)
    return None


def _own_proxies() -> dict[str, str]:
    named = {scheme: _setting(f"{scheme}_proxy") for scheme in ("http", "https")}
    return {scheme: proxy for scheme, proxy in named.items() if proxy}


def _setting(name: str) -> str | None:
    """What the environment, or wandb's files of settings, say of ``name``."""
    if value := os.environ.get(f"WANDB_{name.upper()}"):
        return value
    home = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    files = configparser.ConfigParser(interpolation=None)
    try:
        files.read([home / "settings", Path("wandb") / "settings"])
    except configparser.Error:  # wandb tells it, and goes on without
        return None
    return files.get("default", name, fallback=None)


def _host(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"WANDB_BASE_URL={url} is no address of a server: give one such as {SERVER}"
        )
    return parts.netloc


def _has_key(host: str) -> bool:
    """Whether there is one, in the environment or where `wandb login` writes it."""
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    if key := os.environ.get("WANDB_API_KEY"):
        if len(key) < KEY_LENGTH:
            raise ValueError(
                f"WANDB_API_KEY has {len(key)} characters, a key has at least {KEY_LENGTH}: copy "
                "it from https://wandb.ai/authorize, or log offline with WANDB_MODE=offline"
            )
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _name(error: BaseException) -> str:
    return type(error).__name__
