"""The figure of diagnostics over methods: hand-made histories."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bnnbench.report.diagnostics import VALUES, curves_of, diagnostics
from bnnbench.report.rows import Row


def history(level: float) -> dict[str, Any]:
    logged = {f"diagnostics/{value.key}": [level, level / 2] for value in VALUES}
    return {"epoch": [0, 1], "test/acc": [0.1, 0.2], **logged}


@pytest.fixture
def sweep(make_manifest, make_result):
    """A sweep of so many methods, and fp32, which has nothing to diagnose."""

    def make(count: int) -> tuple[dict[str, Any], dict[str, Any]]:
        cells = [f"quantizer=method{i}" for i in range(count)]
        levels = zip(cells, [0.1 * (i + 1) for i in range(count)], strict=True)
        results = {c: make_result(c[10:], history=history(level)) for c, level in levels}
        results["quantizer=fp32"] = make_result("fp32")
        return make_manifest(*cells, "quantizer=fp32"), results

    return make


def panels(file: Path) -> int:
    page = ET.parse(file).getroot()
    return len([g for g in page.iter() if re.fullmatch(r"axes_\d+", g.get("id") or "")])


def test_shares_are_percent_and_seeds_are_averaged(make_result) -> None:
    found = dict(
        zip(
            (value.key for value in VALUES),
            curves_of(
                Row({}, results=[make_result(history=history(0.2)), {"history": history(0.4)}])
            ),
            strict=True,
        )
    )
    assert found["flipped"] == [(1, pytest.approx(30.0)), (2, pytest.approx(15.0))]
    assert found["dead"] == found["flipped"]
    assert found["weight_entropy"] == [(1, pytest.approx(0.3)), (2, pytest.approx(0.15))]
    assert curves_of(Row({}, results=[make_result()])) == [[] for _ in VALUES]


def test_a_few_methods_share_a_panel_a_value(tmp_path: Path, sweep) -> None:
    manifest, results = sweep(3)
    assert diagnostics(manifest, results, tmp_path / "few", ("svg",))
    text = (tmp_path / "few.svg").read_text()
    assert panels(tmp_path / "few.svg") == len(VALUES)
    for name in ["method0", "method2", *(value.title for value in VALUES)]:
        assert text.count(f"<!-- {name} -->") == 1
    assert "<!-- fp32 -->" not in text


def test_many_methods_have_a_line_of_panels_each(tmp_path: Path, sweep) -> None:
    manifest, results = sweep(9)
    assert diagnostics(manifest, results, tmp_path / "many", ("svg",))
    assert panels(tmp_path / "many.svg") == 9 * len(VALUES)
    text = (tmp_path / "many.svg").read_text()
    assert all(f"<!-- method{i} -->" in text for i in range(9))


def test_runs_without_diagnostics_draw_nothing(tmp_path: Path, make_manifest, make_result) -> None:
    cells = ["quantizer=xnor", "quantizer=adabin"]
    assert not diagnostics(
        make_manifest(*cells), {cell: make_result() for cell in cells}, tmp_path / "none"
    )
    assert not list(tmp_path.iterdir())
