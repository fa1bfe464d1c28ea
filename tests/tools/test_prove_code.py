"""A stamp is renewed where nothing but the writing of the code has changed, and nowhere else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprinted
from bnnbench.records.source import source_hash

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of its own with the code as it is now, committed."""
    top = tmp_path / "repository"
    for folder in ("src", "conf", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, top / folder, ignore=ignored)
    git(top, "init", "--quiet")
    commit(top)
    return top


def git(top: Path, *arguments: str) -> str:
    name = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    command = ["git", "-C", str(top), *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(top: Path) -> str:
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "code")
    return git(top, "rev-parse", "HEAD")


def edit(top: Path, method: str, old: str, new: str) -> None:
    file = top / "src" / "bnnbench" / "quantizers" / f"{method}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def result(top: Path, cfg: DictConfig, **changed: Any) -> Path:
    """A result of the last commit, with its stamp."""
    config = json.loads(json.dumps(fingerprinted(cfg)))
    record = {
        "schema": 2,
        "name": f"{cfg.quantizer.name}_{cfg.recipe.name}",
        "config": config,
        "source_hash": source_hash(config, top / "src" / "bnnbench"),
        "source_proofs": [],
        "precision": "32-true",
        "git": {"commit": git(top, "rev-parse", "HEAD"), "dirty": False},
        **changed,
    }
    file = top / "results" / "runs" / f"{record['name']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record))
    return file


def prove(top: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(top / "tools" / "prove_code.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


SHORT = ("backbone=resnet20", "dataset=digits", "trainer.max_epochs=2")


def test_stamps_are_renewed_only_with_a_proof(
    repository: Path, compose: Callable[..., DictConfig]
) -> None:
    kept = result(repository, compose("quantizer=siman", "recipe=two_step", *SHORT))
    lost = result(repository, compose("quantizer=recu", *SHORT))
    fresh = result(repository, compose("quantizer=xnor", *SHORT))
    records = {file: json.loads(file.read_text()) for file in (kept, lost, fresh)}
    first = records[kept]["git"]["commit"]
    edit(repository, "siman", "sign_ste(unit_spread(x)", "sign_ste(1 * unit_spread(x)")
    edit(repository, "recu", "centred = weight - weight", "centred = weight + weight")
    refused = prove(repository, "--write")
    assert "commit first" in refused.stderr
    second = commit(repository)

    said = prove(repository, "--write")
    assert said.returncode == 1, said.stderr
    assert "3 results: 1 differs, 1 fresh, 1 proven" in said.stdout
    assert lost.stem in next(line for line in said.stdout.splitlines() if "differs" in line)
    for file in (lost, fresh):
        assert json.loads(file.read_text()) == records[file]
    after = json.loads(kept.read_text())
    (proof,) = after["source_proofs"]
    assert proof["from"] == records[kept]["source_hash"]
    assert proof["to"] == after["source_hash"] != proof["from"]
    assert (proof["old_commit"], proof["new_commit"]) == (first, second)
    assert proof["device"] == "cpu"
    assert len(proof["digest"]) == 64

    again = prove(repository, "--runs", kept.stem)
    assert (again.returncode, again.stdout) == (0, "1 results: 1 fresh\n")


def test_code_that_no_commit_has_is_never_proven(
    repository: Path, compose: Callable[..., DictConfig]
) -> None:
    cfg = compose("quantizer=siman", *SHORT)
    nowhere = {"commit": "0" * 40, "dirty": False}
    dirty = {"commit": git(repository, "rev-parse", "HEAD"), "dirty": True}
    result(repository, cfg, name="dirty", git=dirty, source_hash="aaa")
    result(repository, cfg, name="foreign", source_hash="aaa")
    result(repository, cfg, name="unknown", git=nowhere)
    said = prove(repository)
    assert said.returncode == 1
    assert "3 results: 1 dirty, 1 foreign, 1 no commit" in said.stdout
