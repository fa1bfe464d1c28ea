"""A small repository with results, and the site that is built of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bnnbench.site.build import build

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "results/runs/cifar10_resnet20_adabin_task_unified_s0_09feba16.json"


class Page(HTMLParser):
    """What a test needs of a page: its words, links, loaded files, anchors and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.anchors |= {value for value in [found.get("id")] if value}
        if tag == "a" and (to := found.get("href")) is not None:
            self.links.append(to)
        if to := found.get("src") or (found.get("href") if tag == "link" else None):
            self.loads.append(to)

    def handle_data(self, data: str) -> None:
        self.words += data


class World:
    """Results and logs below a folder, and the site of them."""

    def __init__(self, root: Path) -> None:
        self.root, self.results, self.logs = root, root / "results", root / "logs"
        for name in ("runs", "sweeps", "published"):
            (self.results / name).mkdir(parents=True)

    def run(self, key: str, acc: float = 0.9, **changes: Any) -> dict[str, Any]:
        """Write a result to results/runs; dotted keys change what it says."""
        result = copy.deepcopy(json.loads(MEASURED.read_text()))
        result |= {"name": key, "fingerprint": f"{abs(hash(key)):064x}"[:64]}
        result["metrics"]["last"]["test/acc"] = acc
        for path, value in changes.items():
            node = result
            *parents, last = path.split(".")
            for name in parents:
                node = node[name]
            node[last] = value
        result["config"]["seed"] = result["seed"]
        (self.results / "runs" / f"{key}.json").write_text(json.dumps(result))
        return result

    def sweep(self, name: str, *keys: str, logs: bool = False, **changes: Any) -> Path:
        """Write the manifest of a sweep whose cells are runs of results, or none."""
        folder = self.results / "runs"
        cells = []
        for key in keys:
            file = folder / f"{key}.json"
            try:
                result = json.loads(file.read_text())
            except (OSError, ValueError):
                result = {}
            method = result.get("choices", {}).get("quantizer", key)
            cells.append(
                {
                    "overrides": {"quantizer": method, "dataset": "cifar10"},
                    "run": key,
                    "fingerprint": result.get("fingerprint", "0" * 64),
                    "settings": {"quantizer.name": method, "backbone.name": "resnet20"},
                }
            )
        manifest = {
            "schema": 2,
            "name": name,
            "command": f"python src/train.py -m quantizer={','.join(keys)}",
            "table": None,
            "scale": None,
            "scale_notes": None,
            "swept": ["quantizer"],
            "headline": "test/acc",
            "shared": {"seed": 0},
            "cells": cells,
        } | changes
        place = self.logs / "sweeps" / name / "sweep.json" if logs else None
        place = place or self.results / "sweeps" / f"{name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(manifest))
        return place

    def build(self) -> list[str]:
        """Build the site; returns what could not be shown."""
        out = self.root / "build" / "site"
        out.parent.mkdir(exist_ok=True)
        logs = self.logs / "sweeps", self.logs / "runs"
        return build(self.root, self.results, *logs, out)

    def text(self, address: str) -> str:
        """A page of the site."""
        return (self.root / "build" / "site" / address).read_text("utf-8")

    def page(self, address: str) -> Page:
        """A page of the site, parsed."""
        return Page(self.text(address))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(scope="session")
def parsed() -> Callable[[Path], Page]:
    return lambda file: Page(file.read_text("utf-8"))


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The site of the committed results and docs, and what it could not show."""
    out = tmp_path_factory.mktemp("site") / "site"
    nowhere = out.parent / "no logs"
    return out, build(ROOT, ROOT / "results", nowhere / "sweeps", nowhere / "runs", out)
