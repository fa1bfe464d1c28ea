"""The site of what is committed: whole, no dead link, nothing from elsewhere, light."""

from __future__ import annotations

import csv
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from posixpath import dirname, normpath
from urllib.parse import unquote

import pytest

from bnnbench.config import options
from bnnbench.site.build import build

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "src/bnnbench/site/assets/vendor"
Site = tuple[Path, list[str]]


@pytest.fixture(scope="module")
def pages(committed: Site, parsed: Callable) -> dict:
    """Every page of the site by its address."""
    out = committed[0]
    return {str(file.relative_to(out)): parsed(file) for file in sorted(out.rglob("*.html"))}


def test_everything_is_shown(committed: Site, pages: dict) -> None:
    assert committed[1] == []
    for folder, target in (("runs", "runs"), ("sweeps", "tables")):
        for file in (ROOT / "results" / folder).glob("*.json"):
            assert f"{target}/{file.stem}.html" in pages
    assert {f"methods/{method}.html" for method in options("quantizer")} <= pages.keys()
    named = {file.stem for file in (ROOT / "docs").glob("*.md")} - {"README"}
    assert {f"docs/{name}.html" for name in named} | {"docs/index.html"} <= pages.keys()


def test_no_link_is_dead(committed: Site, pages: dict) -> None:
    dead = []
    for address, page in pages.items():
        for link in page.links + page.loads:
            if re.match(r"https?:|mailto:", link):
                continue
            path, _, anchor = link.partition("#")
            place = normpath(f"{dirname(address)}/{unquote(path)}").lstrip("/") if path else address
            there = (committed[0] / place).is_file()
            if not there or (anchor and unquote(anchor) not in pages[place].anchors):
                dead.append((address, link))
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(committed: Site, pages: dict) -> None:
    assert [load for page in pages.values() for load in page.loads if ":" in load] == []
    styles = (committed[0] / "assets/site.css").read_text()
    assert not re.search(r"url\(|@import", styles)


def test_no_page_weighs_three_megabytes(committed: Site, pages: dict) -> None:
    out = committed[0]
    for address, page in pages.items():
        loads = {normpath(f"{dirname(address)}/{load}").lstrip("/") for load in page.loads}
        weight = sum((out / place).stat().st_size for place in {address, *loads})
        assert weight < 3e6, address


def test_a_table_has_the_numbers_of_its_committed_file(committed: Site) -> None:
    text = (committed[0] / "tables/unified_cifar10_ten_epochs.html").read_text()
    with open(ROOT / "results/tables/unified_cifar10_ten_epochs.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    shown = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", text)]
    per_row = len(shown) // len(rows)
    for number, row in enumerate(rows):
        cells = shown[number * per_row + 2 : number * per_row + 2 + len(row)]
        assert [cell.removesuffix("stale") for cell in cells] == [v.rstrip("*") for v in row]


def test_it_is_the_same_whenever_it_is_built_and_takes_seconds(
    committed: Site, tmp_path: Path
) -> None:
    begin = time.process_time()
    build(ROOT, ROOT / "results", tmp_path / "a", tmp_path / "b", tmp_path / "site")
    assert time.process_time() - begin < 30  # of the two cores' 120 in a minute
    for file in (tmp_path / "site").rglob("*.html"):
        other = committed[0] / file.relative_to(tmp_path / "site")
        assert file.read_bytes() == other.read_bytes()


def test_scripts_of_others_are_as_they_were_published() -> None:
    lines = (VENDOR / "README.md").read_text().splitlines()
    stated = {
        cells[0]: cells[5]
        for line in lines
        if line.startswith("| ") and len(cells := line.strip("| ").split(" | ")) == 6
    }
    found = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in VENDOR.glob("*.js")}
    assert found == {name: stated[name] for name in stated if name.endswith(".js")}
    assert len(found) == 4


def test_pictures_of_the_docs_are_light() -> None:
    pictures = list((ROOT / "docs").glob("site_*.png"))
    assert len(pictures) == 2
    assert all(picture.stat().st_size < 200_000 for picture in pictures)
