"""Markup of tables, read back by independent readers."""

import csv
import io
import re

import pytest

from bnnbench.report.markup import MISSING, Table


@pytest.fixture
def table() -> Table:
    rows = [["adabin", "97.22 ± 0.10", "a|b"], ["irnet_50%", MISSING, 'x, "y"\nz']]
    return Table("100 % of_it", ["quantizer", "accuracy %", "what"], rows, ["first", "se\ncond"])


def markdown_cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_reads_back(table: Table) -> None:
    title, blank, *body = table.markdown().splitlines()
    assert (title, blank) == ("# 100 % of_it", "")
    lines = [markdown_cells(line) for line in body if line.startswith("|")]
    assert lines[0] == table.header
    assert all(re.fullmatch("-+:?", rule) for rule in lines[1])
    assert [len(line) for line in lines] == [3] * 4  # a row a line, whatever the cells hold
    assert lines[2] == ["adabin", "97.22 ± 0.10", r"a\|b"]
    assert lines[3] == ["irnet_50%", MISSING, 'x, "y" z']
    assert [line for line in body if line.startswith("- ")] == ["- first", "- se cond"]


def test_markdown_lines_up_and_aligns_numbers(table: Table) -> None:
    body = [line for line in table.markdown().splitlines() if line.startswith("|")]
    assert len({len(line) for line in body}) == 1
    assert [rule.endswith(":") for rule in markdown_cells(body[1])] == [False, True, False]


def test_csv_reads_back(table: Table) -> None:
    assert list(csv.reader(io.StringIO(table.csv()))) == [table.header, *table.rows]


def test_latex_is_escaped_and_has_all_cells(table: Table) -> None:
    latex = table.latex()
    assert r"\caption{100 \% of\_it}" in latex
    assert r"\begin{tabular}{lrl}" in latex
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r"quantizer & accuracy \% & what \\"
    assert rows[1] == r"adabin & 97.22 $\pm$ 0.10 & a|b \\"
    assert rows[2] == r'irnet\_50\% & -- & x, "y" z \\'
    assert latex.count(r"\footnotesize") == 2


def test_latex_escapes_every_special_character() -> None:
    table = Table("t", ["a"], [[r"\ & % $ # _ { } ~ ^ < > ± † §"]])
    cell = table.latex().splitlines()[6]
    expected = (
        r"\textbackslash{} \& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} "
        r"\textless{} \textgreater{} $\pm$ $\dagger$ \S{} \\"
    )
    assert cell == expected


def test_rows_must_fit_the_header() -> None:
    with pytest.raises(ValueError, match="2 cells of the header"):
        Table("t", ["a", "b"], [["1"]])
