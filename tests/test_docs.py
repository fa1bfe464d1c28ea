"""The pages: links lead somewhere, numbers are those of committed tables, examples run."""

from __future__ import annotations

import ast
import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from bnnbench.config import options
from picture import PICTURE, TABLE, digest, draw, measured

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / folder / "README.md" for folder in (".", "results", "data", "results/published")),
    *sorted((ROOT / "docs").glob("*.md")),
]
MEASURED = [ROOT / "README.md", ROOT / "results" / "README.md"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(f"{anchor}-{found.count(anchor)}" if anchor in found else anchor)
    return set(found)


def links(page: Path) -> list[str]:
    """Targets of a page's links and pictures that lie in the repository."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(link)
    assert not broken


def test_every_page_is_named_by_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page != index} <= listed


def test_the_readme_is_one_page() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 140
    pictures = [link for link in links(ROOT / "README.md") if link.endswith(".png")]
    assert pictures
    assert all((ROOT / picture).stat().st_size < 100_000 for picture in pictures)


def test_the_picture_shows_the_committed_table(tmp_path: Path) -> None:
    rows = measured(TABLE)
    with TABLE.open(encoding="utf-8") as file:
        accuracies = [line["accuracy % (last epoch)"] for line in csv.DictReader(file)]
    shown = [row["accuracy % (last epoch)"] for row in rows]
    assert shown == [text for text in accuracies if text[0].isdigit()]
    assert len({row["quantizer"] for row in rows}) == len(rows)
    with Image.open(PICTURE) as picture:
        assert picture.info["Comment"] == digest(rows), "run python docs/build/picture.py"
    draw(rows[:2], tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as other, Image.open(PICTURE) as picture:
        assert other.info["Comment"] == digest(rows[:2]) != picture.info["Comment"]
        assert other.width == picture.width
        assert other.height < picture.height


@pytest.mark.parametrize("group", ["quantizer", "loss", "backbone", "dataset", "recipe", "table"])
def test_the_readme_counts_the_options(group: str) -> None:
    others = {"quantizer": ["fp32"], "table": ["none"]}
    row = re.search(rf"^\| `{group}` \| (\d+)\b", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert row
    assert int(row[1]) == len(set(options(group)) - set(others.get(group, [])))


@pytest.mark.parametrize("group", ["quantizer", "loss", "backbone", "dataset", "recipe", "table"])
def test_the_options_page_names_every_option(group: str) -> None:
    text = (ROOT / "docs" / "options.md").read_text("utf-8")
    titles = {"dataset": "Data sets", "quantizer": "Quantizers", "loss": "Losses"}
    title = titles.get(group, f"{group.capitalize()}s")
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    assert set(options(group)) - {"none"} <= set(re.findall(r"`(\w+)`", section))


def test_the_design_page_lists_the_rooms_in_their_order() -> None:
    """As `test_rooms.py` has it; the package's front door, plugin and scripts stand apart."""
    tree = ast.parse((ROOT / "tests" / "test_rooms.py").read_text("utf-8"))
    order = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    package = ROOT / "src" / "bnnbench"
    there = {path.stem for path in package.iterdir() if not path.name.startswith("__")}
    there -= {"conf", "zoo"}  # links to what lies at the top
    expected = [room for room in ast.literal_eval(order) if room in there]
    assert set(expected) == there
    table = (ROOT / "docs" / "design.md").read_text("utf-8").split("| room |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.M) == expected


def sections(page: Path) -> list[tuple[str, str]]:
    """Headings and texts of the second level."""
    parts = re.split(r"^## (.+)$", prose(page), flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def committed(section: str) -> dict[str, set[str]]:
    """What the tables that a section links to say of a method, by its name.

    These are the cells as rendered and, of the table of runs, the precision of each class in %.
    """
    cells: dict[str, set[str]] = {}
    for name in re.findall(r"tables/(\w+)\.md\)", section):
        stem = ROOT / "results" / "tables" / name
        with stem.with_suffix(".csv").open(encoding="utf-8") as file:
            for row in csv.reader(file):
                cells.setdefault(row[0], set()).update(row)
        runs = stem.with_name(f"{name}_runs.csv")
        if not runs.exists():  # of no sweep: efficiency, overall scores
            continue
        with runs.open(encoding="utf-8") as file:
            for run in csv.DictReader(file):
                precisions = [run[key] for key in run if key.startswith("test/ap/") and run[key]]
                rounded = {f"{100 * float(value):.1f}" for value in precisions}
                cells.setdefault(run["quantizer"], set()).update(rounded)
    return cells


@pytest.mark.parametrize("page", MEASURED, ids=named)
def test_numbers_of_a_results_table_are_those_of_the_committed_one(page: Path) -> None:
    checked = 0
    for title, section in sections(page):
        known = committed(section)
        rows = re.findall(r"^\| (\w+) \| (.+) \|$", section, re.M)
        for method, rest in rows if known else []:
            numbers = {cell for cell in rest.split(" | ") if re.fullmatch(r"\d[\d.e]*", cell)}
            twins = known.get("fp32", set()) if "twin" in section else set()
            missing = numbers - known.get(method, set()) - twins
            assert not missing or method not in known, f"{title}, {method}: {missing}"
            checked += len(numbers) * (method in known)
    assert checked > 20


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A temporary copy of what a command reads."""
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "design.md"], ids=named)
def test_python_of_the_page_runs(page: Path) -> None:
    for block in blocks(page, "python"):
        exec(block, {})


def test_the_tutorial_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks in order, as in a notebook; they assert what they say."""
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PYTHONPATH", str(checkout / "src"))
    names: dict = {}
    for block in blocks(ROOT / "docs" / "tutorial.md", "python"):
        exec(block, names)
    assert sorted(names["results"]) == ["adabin", "xnor"]


def printed_files(page: Path) -> dict[str, str]:
    """Files that a page prints, by the place that a line before each names."""
    text = page.read_text("utf-8")
    fence = r"^```(?:python|yaml)\n(.*?)^```$"
    found = {}
    for block in re.finditer(fence, text, re.M | re.S):
        before = text[: block.start()].rsplit("```", 1)[-1]
        found[re.findall(r"^`((?:src|conf)/[\w/]+\.(?:py|yaml))`:$", before, re.M)[-1]] = block[1]
    return found


def test_a_loss_a_backbone_a_data_set_and_a_table_are_added_as_the_page_says(
    checkout: Path,
) -> None:
    page = ROOT / "docs" / "extending.md"
    files = printed_files(page)
    assert len(files) == 7
    for place, content in files.items():
        assert not (checkout / place).exists()
        (checkout / place).write_text(content, encoding="utf-8")
    command = blocks(page, "bash")[-1].split()
    assert command[:2] == ["python", "src/train.py"]
    done = subprocess.run(
        [sys.executable, *command[1:], "trainer.accelerator=cpu", "hydra/launcher=basic"],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (\w+) +\| (\w+) +\|.*? (\d+\.\d+) \|", done.stdout, re.M)
    assert [row[:2] for row in rows] == [
        ("fp32", "task"),
        *((method, loss) for method in ("xnor", "adabin") for loss in ("task", "sign_error")),
    ]
    assert all(float(accuracy) > 50 for *_, accuracy in rows)  # guessing gets 25 %


def test_the_pages_loss_is_the_variance_of_magnitudes() -> None:
    names: dict = {"__name__": "sign_error"}
    exec(printed_files(ROOT / "docs" / "extending.md")["src/bnnbench/losses/sign_error.py"], names)
    weight = torch.tensor([[1.0, -3.0], [2.0, 2.0]]).view(2, 2, 1, 1)
    assert float(names["sign_error"](weight)) == 0.5
