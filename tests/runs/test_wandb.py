"""wandb: when it is online, and that what breaks in it ends no training."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bnnbench.runs.run_log import About
from bnnbench.runs.wandb import WandbLog, choose_mode, terminal_settings, unreachable

KEY = "0123456789abcdef0123456789abcdef01234567"
VARIABLES = ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC")
VARIABLES += ("WANDB_SILENT", "WANDB_QUIET", "WANDB_SHOW_INFO")
VARIABLES += ("WANDB_FINISH_TIMEOUT", "http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without any settings, in a folder of her own."""
    for name in (*VARIABLES, *map(str.upper, VARIABLES)):
        monkeypatch.setenv(name, "taken back")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


class Says(BaseHTTPRequestHandler):
    """Answers every request with the server's ``code``."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.code)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    """A server on this machine that answers; what it was asked is in ``asked``."""
    found: Any = HTTPServer(("127.0.0.1", 0), Says)
    found.code, found.asked = 404, []
    found.url = f"http://127.0.0.1:{found.server_port}"
    Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def closed() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("code", [200, 401, 404, 500])
def test_any_answer_of_a_server_is_one(server: Any, code: int) -> None:
    server.code = code
    assert unreachable(f"{server.url}/graphql", 2.0) is None


def test_a_mute_server_is_given_up_in_time(mute: str) -> None:
    start = time.monotonic()
    assert unreachable(mute, 0.5) is not None
    assert time.monotonic() - start < 2


def test_nobody_there() -> None:
    assert "refused" in str(unreachable(closed(), 2.0))
    assert unreachable("http://no.such.host.invalid", 1.0) is not None


def test_the_proxy_is_asked(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that only the proxy can see counts; one that the proxy cannot see does not."""
    monkeypatch.setenv("http_proxy", server.url)
    assert unreachable("http://no.such.host.invalid/graphql", 2.0) is None
    assert server.asked == ["http://no.such.host.invalid/graphql"]
    server.code = 502
    assert "502" in str(unreachable("http://no.such.host.invalid/graphql", 2.0))
    monkeypatch.setenv("http_proxy", closed())
    assert unreachable(f"{server.url.replace('127.0.0.1', 'localhost')}", 2.0) is not None


@pytest.mark.parametrize("reachable", [True, False])
def test_a_key_is_online_where_the_server_answers(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, reachable: bool
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", server.url if reachable else closed())
    choose_mode("logs/run")
    assert os.environ["WANDB_MODE"] == ("online" if reachable else "offline")
    told = capsys.readouterr().out
    assert ("wandb sync logs/run/wandb/offline-run-*" in told) is not reachable
    choose_mode("logs/run")  # once: the mode is settled, for workers as well
    assert len(server.asked) <= 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_what_the_user_chose_stands(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", closed())
    monkeypatch.setenv("WANDB_MODE", mode)
    choose_mode("run")
    assert os.environ["WANDB_MODE"] == mode


def test_wandb_s_own_file_of_settings_counts(tmp_path: Path, server: Any) -> None:
    settings = tmp_path / ".config" / "wandb" / "settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"[default]\nbase_url = {server.url}\n")
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {server.url[7:]} login user password {KEY}\n")
    netrc.chmod(0o600)
    choose_mode("run")
    assert os.environ.pop("WANDB_MODE") == "online"
    settings.write_text(f"[default]\nmode = disabled\nbase_url = {server.url}\n")
    choose_mode("run")
    assert "WANDB_MODE" not in os.environ


@pytest.mark.parametrize("machine", [None, "example.org"])
def test_runs_are_offline_without_a_key_for_the_server(
    tmp_path: Path, server: Any, machine: str | None
) -> None:
    if machine is not None:
        (tmp_path / ".netrc").write_text(f"machine {machine} login user password {KEY}\n")
        (tmp_path / ".netrc").chmod(0o600)
    choose_mode("run")
    assert os.environ["WANDB_MODE"] == "offline"
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_API_KEY", "secret", "at least 40"),
        ("WANDB_BASE_URL", "api.wandb.ai", "no address"),
        ("WANDB_BASE_URL", "ftp://here", "no address"),
    ],
)
def test_a_key_or_an_address_that_cannot_be_one(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        choose_mode("run")


def test_a_wandb_that_breaks_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is asked once, and the second metric is not even tried."""
    asked = []

    class Experiment:
        def log(self, metrics: Any) -> None:
            asked.append(metrics)
            raise BrokenPipeError("its process is gone")

    logger = WandbLog(About("run"), "project", str(tmp_path), None)
    logger._experiment = Experiment()  # type: ignore[assignment]
    logger.log_metrics({"train/a": 1.0}, step=1)
    logger.log_metrics({"train/a": 2.0}, step=2)
    assert [metrics["train/a"] for metrics in asked] == [1.0]


@pytest.mark.parametrize(
    ("chosen", "settings"),
    [
        ({"WANDB_MODE": "offline"}, {"silent": True}),
        ({"WANDB_MODE": "online"}, {"quiet": True}),
        ({"WANDB_MODE": "offline", "WANDB_SILENT": "false"}, {}),
        ({"WANDB_MODE": "offline", "WANDB_QUIET": "true"}, {}),
    ],
)
def test_what_is_left_out_on_the_terminal_is_the_users_choice_first(
    chosen: dict[str, str], settings: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert terminal_settings() == settings


def test_an_offline_run_says_in_one_line_how_to_upload_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLog(About("a_run"), "project", str(tmp_path), None)
    logger.log_metrics({"train/a": 1.0, "epoch": 0}, step=1)
    logger.close("success")
    told = capfd.readouterr()
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    upload = f"wandb: logged offline; upload it with `wandb sync {folder}`\n"
    assert (told.err, told.out) == (upload, "")
