"""wandb: online where its server answers, else offline; what breaks in it never ends a training."""

from __future__ import annotations

import configparser
import logging
import netrc
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)

SERVER = "https://api.wandb.ai"
ANSWER_S = 5.0  # that the server has for its first answer
UPLOAD_S = 120  # that a finished run has for its last uploads; wandb itself waits for ever
KEY_LENGTH = 40  # of wandb's shortest keys
_GATEWAY = (502, 503, 504)  # a proxy answers in the server's place


class RunLogger(WandbLogger):
    """Lightning's logger; where wandb breaks in the middle of a training, that goes on without."""

    _broken = False

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The first that a run asks of wandb. ValueError where it cannot begin."""
        from wandb.errors import Error

        try:
            super().log_hyperparams(params)
        except Error as error:
            raise ValueError(
                f"logger=wandb: {error}; WANDB_MODE=offline logs without its server"
            ) from error

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self._broken:
            self._broken = not survives(lambda: super(RunLogger, self).log_metrics(metrics, step))


def survives(call: Callable[[], Any]) -> bool:
    """Whether wandb did what it was asked; a warning says what is lost where it did not."""
    try:
        call()
    except Exception as error:  # of its process, its sockets, its disk: wandb names no common class
        log.warning("wandb stopped (%s: %s): the run goes on without it", _name(error), error)
        return False
    return True


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
