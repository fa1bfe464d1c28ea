"""Sites of a few hand-made results: what is damaged, odd or hostile costs itself alone."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bnnbench.site import build as site_build
from bnnbench.site.pages import MARKER

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
WORDS = "a \"b\" 'c' &amp; | {{ 7*7 }}"


def complaint(problems: list[str], *words: str) -> str:
    """The one problem that has all these words."""
    (found,) = [line for line in problems if all(word in line for word in words)]
    assert "\n" not in found
    return found


def test_a_damaged_result_costs_its_own_page(world) -> None:
    world.run("good")
    (world.results / "runs/broken.json").write_text('{"schema": 2, "name"')
    (world.results / "runs/list.json").write_text("[1, 2]")
    (world.results / "runs/binary.json").write_bytes(b"\xff\xfe\x00")
    world.sweep("both", "good", "broken")
    problems = world.build()
    for name in ("broken", "list", "binary"):
        complaint(problems, f"{name}.json")
    assert "broken.json" in world.page("problems.html").words
    assert "3 not shown" in " ".join(world.page("index.html").words.split())
    assert "damaged" in world.text("tables/both.html")
    assert "90.00" in world.text("runs/good.html")
    assert not (world.root / "build/site/runs/broken.html").exists()


def test_manifests_of_an_older_form_or_none_are_named(world) -> None:
    world.run("good")
    world.sweep("good", "good")
    world.sweep("old", "good", schema=1)
    (world.results / "sweeps/broken.json").write_text("{")
    world.sweep("no_cells", "good", cells=[{"run": "../../x"}])
    world.sweep("mistyped", "good", table={"published": "nothing"})
    problems = world.build()
    assert "tools/rekey.py" in complaint(problems, "old.json")
    complaint(problems, "broken.json", "damaged")
    complaint(problems, "no_cells.json")
    complaint(problems, "nothing.yaml")
    tables = world.page("tables.html").links
    assert [link for link in tables if link.startswith("tables/")] == ["tables/good.html"]


def test_a_result_of_an_older_form_is_shown(world) -> None:
    result = world.run("old")
    result["schema"] = 1
    for key in ("source_proofs", "ended", "planned_epochs", "stages"):
        result.pop(key, None)
    (world.results / "runs/old.json").write_text(json.dumps(result))
    problems = world.build()
    shown = (world.root / "build/site/runs/old.html").exists()
    assert shown or complaint(problems, "old.json")
    assert shown


def test_published_numbers_that_are_wrong_are_named(world) -> None:
    world.run("good")
    (world.results / "published/wrong.yaml").write_text("title: x\n")
    complaint(world.build(), "wrong.yaml", "missing key")
    assert "90.00" in world.text("index.html")


def test_two_results_of_one_name_have_a_page_each(world) -> None:
    world.run("first", acc=0.8)
    result = world.run("second", acc=0.7)
    (world.results / "runs/second.json").write_text(json.dumps(result | {"name": "first"}))
    complaint(world.build(), "first.json", "second.json", "delete all but one")
    assert "80.00" in world.text("runs/first.html")
    assert "70.00" in world.text("runs/second.html")


def test_no_result_at_all_is_said(world) -> None:
    assert world.build() == []
    assert "There is no result yet" in world.page("index.html").words
    assert "No sweep" in world.page("tables.html").words


def test_a_sweep_without_a_finished_run_says_why(world) -> None:
    world.run("good")
    world.sweep("empty", "one", "two", logs=True)
    error = world.logs / "runs/one/error.txt"
    error.parent.mkdir(parents=True)
    error.write_text("Traceback\nValueError: no <b>such</b> thing\n")
    assert world.build() == []
    page = world.page("tables/empty.html")
    assert "No run of this sweep has finished" in page.words
    assert "not promoted" in page.words
    hints = [tag["data-tip"] for _, tag in page.tags if tag.get("class") == "mark failed"]
    assert hints == ["ValueError: no <b>such</b> thing"]
    assert "b" not in {name for name, _ in page.tags} - {"b"}
    assert "0 of 2 runs finished, 1 failed" in world.page("tables.html").words


def test_a_sweep_of_the_logs_that_was_promoted_has_one_page(world) -> None:
    world.run("good")
    world.sweep("stored", "good")
    world.sweep("typed", "good", logs=True)
    world.build()
    tables = sorted(path.name for path in (world.root / "build/site/tables").iterdir())
    assert tables == ["stored.html"]


def test_what_the_logs_alone_have_is_marked(world) -> None:
    result = world.run("mine")
    (world.results / "runs/mine.json").unlink()
    folder = world.logs / "runs/mine"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    place = world.sweep("typed", "mine", logs=True)
    manifest = json.loads(place.read_text())
    manifest["cells"][0]["fingerprint"] = result["fingerprint"]
    place.write_text(json.dumps(manifest))
    world.build()
    assert '<span class="mark local"' in world.text("index.html")
    assert '<span class="mark local"' in world.text("runs/mine.html")


@pytest.mark.parametrize("words", [HOSTILE, WORDS])
def test_html_in_names_and_notes_is_shown_not_followed(world, words: str) -> None:
    changes = {"choices.quantizer": words, "choices.loss": words, "device": words}
    changes |= {"command": words, "tags": [words], "ended": words, "git.commit": words}
    world.run("odd", **changes, **{"config.quantizer.name": words})
    world.run("other")
    table = {"title": words, "notes": [words]}
    world.sweep("odd", "odd", "other", table=table, title=words, scale_notes=words, command=words)
    assert world.build() == []
    out = world.root / "build/site"
    for file in out.rglob("*.html"):
        page = world.page(str(file.relative_to(out)))
        scripts = [tag for name, tag in page.tags if name == "script" and not tag.get("src")]
        assert all(tag.get("type") == "application/json" for tag in scripts), file
        assert not [tag for _, tag in page.tags if any(key.startswith("on") for key in tag)]
    for address in ("index.html", "tables/odd.html", "runs/odd.html", "tables.html"):
        assert words in world.page(address).words, address


@pytest.mark.parametrize(
    "name", ["../../outside", "a/b", "index", ".hidden", "x" * 300, "é ü", "."]
)
def test_no_name_leaves_the_folder(world, name: str) -> None:
    world.run("odd", **{"choices.quantizer": name})
    world.run("second", **{"choices.quantizer": name.upper()})
    before = {path for path in world.root.rglob("*") if "build" not in path.parts}
    world.build()
    assert {path for path in world.root.rglob("*") if "build" not in path.parts} == before
    (methods,) = (world.root / "build/site/methods",)
    found = sorted(path.name.lower() for path in methods.iterdir())
    assert len(set(found)) == len(found) == 1 + len({name, name.upper()})


def test_a_folder_of_somebody_elses_is_kept(world) -> None:
    out = world.root / "build/site"
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"build/site holds what is no site.*move it away"):
        world.build()
    assert (out / "mine.txt").read_text() == "mine"


def test_a_file_in_its_place_is_told(world) -> None:
    (world.root / "file").touch()
    places = world.root, world.results, world.logs / "sweeps", world.logs / "runs"
    with pytest.raises(ValueError, match=r"file is a file where the folder of the site would be"):
        site_build.build(*places, world.root / "file" / "site")


def test_it_replaces_an_older_site(world) -> None:
    world.run("first")
    world.build()
    (world.results / "runs/first.json").unlink()
    world.run("second")
    world.build()
    out = world.root / "build/site"
    assert (out / MARKER).is_file()
    assert [file.name for file in (out / "runs").iterdir()] == ["second.html"]
    assert list(out.parent.iterdir()) == [out]


def test_a_missing_package_is_named_with_its_extra(world, monkeypatch) -> None:
    monkeypatch.setattr(site_build, "find_spec", lambda name: None if name == "jinja2" else name)
    assert importlib.util.find_spec("jinja2")
    with pytest.raises(ValueError, match=r"needs jinja2.*pip install 'bnnbench\[site\]'"):
        world.build()


def test_a_run_says_how_to_repeat_it_and_what_it_compares_with(world) -> None:
    world.run("one", acc=0.9)
    world.run("two", acc=0.8, **{"choices.quantizer": "xnor", "config.quantizer.name": "xnor"})
    world.run("longer", acc=0.95, epochs=300, **{"config.trainer.max_epochs": 300})
    world.build()
    page = world.page("runs/one.html")
    assert json.loads((world.results / "runs/one.json").read_text())["command"] in page.words
    assert "two.html" in page.links
    assert "longer.html" not in page.links
    assert "optimizer" in page.words
    history = page.words[page.words.index('[{"lines"') :]
    assert json.JSONDecoder().raw_decode(history)[0][0]["title"] == "accuracy %"


def test_a_long_history_is_thinned_to_its_ends(world) -> None:
    from bnnbench.site.run_pages import history_of

    values = [float(epoch) / 5000 for epoch in range(5000)]
    history = {"epoch": list(range(5000)), "test/acc": values, "test/loss": [None] * 5000}
    (chart,) = history_of({"history": history, "headline": "test/acc"})
    points = chart["lines"][0]["points"]
    assert len(points) < 450
    assert points[0] == [1, 0.0]
    assert points[-1] == [5000, pytest.approx(100 * values[-1])]


def test_links_of_the_docs(world) -> None:
    world.run("good")
    world.sweep("stored", "good")
    docs = world.root / "docs"
    docs.mkdir()
    (world.root / "src").mkdir()
    (world.root / "src/code.py").write_text("x = '<b>'\n")
    (world.root.parent / "outside.txt").write_text("not of the repository")
    (docs / "README.md").write_text("# Index\n\n## To begin\n\n[p](page.md#two-words)\n")
    (docs / "page.md").write_text(
        "# Page\n\n## Two words\n\n[t](../results/tables/stored.md) [r](../results/runs/good.json) "
        "[c](../src/code.py) [x](nowhere.md) [up](../../outside.txt) [j](javascript:alert(1)) "
        "[w](https://example.org/)\n\n<b>raw</b>\n"
    )
    problems = world.build()
    complaint(problems, "nowhere.md")
    complaint(problems, "outside.txt")
    page = world.page("docs/page.html")
    article = page.links[page.links.index("../tables/stored.html") :]
    assert article[:4] == [
        "../tables/stored.html",
        "../runs/good.html",
        "../source/src/code.py.html",
        "https://example.org/",
    ]
    assert "<b>raw</b>" in page.words
    assert "two-words" in page.anchors
    assert "page.html#two-words" in world.page("docs/index.html").links
    assert "x = '<b>'" in world.page("source/src/code.py.html").words


def test_the_command(world, tmp_path: Path) -> None:
    import subprocess
    import sys

    world.run("good")
    (world.results / "runs/broken.json").write_text("{")
    script = Path(__file__).parents[2] / "src/report.py"
    command = [sys.executable, script, "site=true", f"paths.root_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "not shown: " in done.stderr
    assert "broken.json" in done.stderr
    assert done.stdout.strip().endswith("build/site/index.html")
    assert "90.00" in world.text("index.html")
    assert not (world.results / "tables").exists()
