"""Promotion copies what is finished and refuses what cannot be traced to a commit."""

import json
from pathlib import Path

import pytest

from bnnbench.report.promote import continued, promote
from bnnbench.report.render import render


@pytest.fixture
def folders(tmp_path: Path, make_written, write) -> dict[str, Path]:
    manifest = make_written("quantizer=bnn", "quantizer=xnor")
    write(tmp_path / "sweeps" / "a_sweep" / "sweep.json", manifest)
    names = ("sweeps", "runs", "results")
    return {f"{name}_dir": tmp_path / name for name in names}


@pytest.fixture
def finish(folders, make_result, write, hexed):
    """Write the result of a run, with the git state given."""

    def finish_run(run: str, entries: dict | None = None, **git) -> Path:
        result = make_result(
            run.split("=")[1],
            fingerprint=hexed(run),
            git={"commit": None, "dirty": None} | git,
            **(entries or {}),
        )
        return write(folders["runs_dir"] / run / "result.json", result)

    return finish_run


def test_copies_the_manifest_and_finished_results(folders, finish) -> None:
    source = finish("quantizer=bnn", commit="abc", dirty=False)
    copied = promote("a_sweep", **folders)
    results = folders["results_dir"]
    assert copied == [results / "sweeps/a_sweep.json", results / "runs/quantizer=bnn.json"]
    assert copied[1].read_bytes() == source.read_bytes()
    assert json.loads(copied[1].read_text())["history"]["test/acc"] == [0.7, 0.9]
    assert json.loads(copied[0].read_text())["name"] == "a_sweep"


def test_pictures_go_along(folders, finish) -> None:
    source = finish("quantizer=bnn", commit="abc", dirty=False)
    (source.parent / "pictures").mkdir()
    (source.parent / "pictures" / "boxes.png").write_bytes(b"picture")
    promote("a_sweep", **folders)
    copied = folders["results_dir"] / "figures" / "quantizer=bnn_boxes.png"
    assert copied.read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("git", "why"),
    [
        ({"commit": "abc", "dirty": True}, "uncommitted changes"),
        ({"commit": "abc"}, "uncommitted changes"),
        ({"commit": None, "dirty": None}, "no git commit"),
        ({}, "no git commit"),
    ],
)
def test_refuses_untraceable_results_and_copies_nothing(folders, finish, git, why) -> None:
    finish("quantizer=bnn", commit="abc", dirty=False)
    finish("quantizer=xnor", **git)
    with pytest.raises(ValueError, match=rf"quantizer=xnor/result\.json: .*{why}") as refusal:
        promote("a_sweep", **folders)
    assert "quantizer=bnn" not in str(refusal.value)
    assert "allow_dirty=true" in str(refusal.value)
    assert not folders["results_dir"].exists()
    assert len(promote("a_sweep", **folders, allow_dirty=True)) == 3


def test_unknown_and_unfinished_sweeps(folders) -> None:
    with pytest.raises(FileNotFoundError, match=r"no sweep 'b'.*there are: a_sweep"):
        promote("b", **folders)
    with pytest.raises(ValueError, match="no finished run"):
        promote("a_sweep", **folders)


CLEAN = {"commit": "abc", "dirty": False}


def test_stored_under_another_name(folders, finish, write, make_manifest) -> None:
    finish("quantizer=bnn", **CLEAN)
    source = json.loads((folders["sweeps_dir"] / "a_sweep" / "sweep.json").read_text())
    results = folders["results_dir"]
    copied = promote("a_sweep", **folders, stored_as="two-methods", title="Two methods")
    assert copied[0] == results / "sweeps" / "two-methods.json"
    stored = json.loads(copied[0].read_text())
    assert stored == source | {"name": "two-methods", "title": "Two methods"}
    promote("a_sweep", **folders, stored_as="two-methods")  # again: its title stays
    assert json.loads(copied[0].read_text()) == stored
    assert [path.name for path in (results / "sweeps").iterdir()] == ["two-methods.json"]


def test_why_its_other_rows_were_not_run_stands_under_its_table(folders, finish) -> None:
    finish("quantizer=bnn", **CLEAN)
    results = folders["results_dir"]

    def notes() -> list[str]:
        (stored, *_) = promote("a_sweep", **folders, not_run=said.pop())
        return render(stored, [results / "runs"], results, results / "published").notes

    said = [None, None, "budget"]
    told = "rows without a result: not run: budget"
    assert [told in notes(), told in notes()] == [True, True]  # again: the reason stays
    finish("quantizer=xnor", **CLEAN)
    assert told not in notes()


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a/b",
        "../a",
        "a.b",
        "-a",
        "",
        "ä",
        "index",
        "a_runs",
        "a_conclusions",
        "a_sensitivity",
        "efficiency",
        "overall_scores_x",
    ],
)
def test_a_name_that_is_none_is_refused(folders, finish, name) -> None:
    finish("quantizer=bnn", **CLEAN)
    with pytest.raises(ValueError, match="as="):
        promote("a_sweep", **folders, stored_as=name)
    assert not folders["results_dir"].exists()


def test_another_sweeps_name_is_refused(folders, finish, write, make_manifest) -> None:
    finish("quantizer=bnn", **CLEAN)
    other = make_manifest("quantizer=irnet", command="python src/train.py quantizer=irnet")
    taken = write(folders["results_dir"] / "sweeps" / "taken.json", other)
    with pytest.raises(ValueError, match=r"taken\.json is another sweep \(python src/train.py q"):
        promote("a_sweep", **folders, stored_as="taken")
    assert json.loads(taken.read_text()) == other
    assert not (folders["results_dir"] / "runs").exists()


@pytest.mark.parametrize(
    ("ended", "epochs", "why"),
    [
        ("max_time", {"epochs": 3, "planned_epochs": 10}, "max_time after 3 of 10 epochs"),
        ("limit_train_batches=3", {"planned_epochs": None}, "limit_train_batches=3 after 2 epochs"),
    ],
)
def test_a_run_that_ended_early_is_no_full_one(folders, finish, ended, epochs, why) -> None:
    finish("quantizer=bnn", **CLEAN)
    finish("quantizer=xnor", {"ended": ended, **epochs}, **CLEAN)
    with pytest.raises(
        ValueError, match=rf"quantizer=xnor/result\.json: ended by {why}"
    ) as refusal:
        promote("a_sweep", **folders, allow_dirty=True)
    assert "quantizer=bnn" not in str(refusal.value)
    assert "allow_partial=true" in str(refusal.value)
    assert not folders["results_dir"].exists()
    assert len(promote("a_sweep", **folders, allow_partial=True)) == 3


def test_a_promoted_run_is_not_replaced_by_one_on_other_data(folders, finish) -> None:
    finish("quantizer=bnn", {"data_stamp": f"sha256:{'a' * 64}"}, **CLEAN)
    promote("a_sweep", **folders)
    kept = folders["results_dir"] / "runs" / "quantizer=bnn.json"
    before = kept.read_text()
    finish("quantizer=bnn", {"data_stamp": f"sha256:{'b' * 64}"}, **CLEAN)
    with pytest.raises(ValueError, match="on other data of the same name"):
        promote("a_sweep", **folders)
    assert kept.read_text() == before
    finish("quantizer=bnn", {"data_stamp": f"sha256:{'a' * 64}"}, **CLEAN)
    promote("a_sweep", **folders)


def test_a_damaged_result_is_left_out_and_named(folders, finish, capsys) -> None:
    finish("quantizer=bnn", **CLEAN)
    bad = finish("quantizer=xnor", **CLEAN)
    bad.write_text("{")
    copied = promote("a_sweep", **folders)
    assert [path.name for path in copied] == ["a_sweep.json", "quantizer=bnn.json"]
    assert f"left out: {bad}: damaged" in capsys.readouterr().err


def test_a_manifest_without_settings_has_to_be_written_anew(folders, finish, write) -> None:
    finish("quantizer=bnn", **CLEAN)
    path = folders["sweeps_dir"] / "a_sweep" / "sweep.json"
    write(path, json.loads(path.read_text()) | {"schema": 1})
    with pytest.raises(ValueError, match=r"is of version 1: python tools/rekey\.py"):
        promote("a_sweep", **folders)


def test_a_promoted_result_says_what_was_exported(folders, finish, write, hexed) -> None:
    source = finish("quantizer=bnn", commit="abc", dirty=False)
    export = {"bytes": 9, "header_bytes": 8, "sha256": "0" * 64, "work": "a", "half": False}
    record = {"fingerprint": hexed("quantizer=bnn"), "export": export}
    write(source.with_name("packed.json"), record)
    _, result = promote("a_sweep", **folders)
    assert json.loads(result.read_text()) == json.loads(source.read_text()) | {"export": export}


def test_what_was_proved_of_a_promoted_result_stays(folders, finish, write) -> None:
    """Its code was shown to give the same numbers, which the run's own result does not know."""
    source = finish("quantizer=bnn", commit="abc", dirty=False)
    _, result = promote("a_sweep", **folders)
    proof = {"source_hash": "1" * 64, "source_proofs": [{"from": "a" * 64, "to": "1" * 64}]}
    write(result, json.loads(result.read_text()) | proof)
    promote("a_sweep", **folders)
    assert json.loads(result.read_text()) == json.loads(source.read_text()) | proof
    anew = json.loads(source.read_text())
    anew["time"]["train_s"] += 1  # the same run, trained again
    write(source, anew)
    promote("a_sweep", **folders)
    assert json.loads(result.read_text()) == anew


def test_a_continued_run_is_said_to_be_one(folders, finish) -> None:
    origin = {"name": "first", "fingerprint": "0" * 64, "epochs": 8, "lr": [0.1, 0.1]}
    finish("quantizer=bnn", {"continued": origin}, commit="abc", dirty=False)
    finish("quantizer=xnor", commit="abc", dirty=False)
    (line,) = continued(promote("a_sweep", **folders))
    assert line.endswith("is a continued run: it goes on from first after its 8 epochs")
