"""A table in a terminal: as wide as that, without loss."""

from __future__ import annotations

import random

import pytest
from rich.cells import cell_len

from bnnbench.report.markup import Table
from bnnbench.report.terminal import fitted, shorter, wrapped

HEADER = ["quantizer", "W/A bits", "accuracy % (last epoch)", "seeds", "params (M)", "shortcut"]
ROWS = [
    ["adabin", "1/1", "21.94", "1", "0.271", "conv"],
    ["xnor", "1/1", "30.00", "1", "0.269", "block"],
    ["birealnet", "1/1", "51.11", "1", "0.269", "conv"],
]
NOTES = ["all rows: backbone resnet20, dataset digits", "measured at commit: 793a648037"]


def test_what_all_rows_share_stands_in_a_line() -> None:
    assert fitted(Table("three methods", HEADER, ROWS, list(NOTES)), 80) == (
        "three methods\n"
        "\n"
        "           accuracy\n"
        "            % (last  params\n"
        "quantizer    epoch)     (M)  shortcut\n"
        "---------  --------  ------  --------\n"
        "adabin        21.94   0.271  conv\n"
        "xnor          30.00   0.269  block\n"
        "birealnet     51.11   0.269  conv\n"
        "\n"
        "- all rows: W/A bits 1/1, seeds 1, backbone resnet20, dataset digits\n"
        "- measured at commit: 793a648037\n"
    )


def test_columns_that_do_not_fit_follow() -> None:
    lines = fitted(Table("three methods", HEADER, ROWS), 36).splitlines()
    assert lines[2:10] == [
        "           accuracy",
        "            % (last  params",
        "quantizer    epoch)     (M)",
        "---------  --------  ------",
        "adabin        21.94   0.271",
        "xnor          30.00   0.269",
        "birealnet     51.11   0.269",
        "",
    ]
    assert lines[10:15] == [
        "quantizer  shortcut",
        "---------  --------",
        "adabin     conv",
        "xnor       block",
        "birealnet  conv",
    ]
    assert lines[-1] == "- all rows: W/A bits 1/1, seeds 1"


def test_rows_that_their_first_column_does_not_tell_apart_are_numbered() -> None:
    rows = [["xnor", *row[1:]] for row in ROWS]
    lines = fitted(Table("t", HEADER, rows), 36).splitlines()
    assert [line[0] for line in lines if line[:1].isdigit()] == ["1", "2", "3"] * 2
    assert "#" not in fitted(Table("t", HEADER, rows), 80)


def test_one_row_keeps_its_columns_and_scores_stay() -> None:
    text = fitted(Table("one", HEADER, ROWS[:1]), 80)
    assert "all rows" not in text
    assert "seeds" in text
    same = [["a", "1/1", "50.00", "1", "1", "conv"], ["b", "1/1", "50.00", "1", "2", "conv"]]
    assert fitted(Table("two", HEADER, same), 80).count("50.00") == 2


def test_texts_that_are_shortened_are_written_out() -> None:
    long = "loss.terms.kernel={weight: 0.0001, mixture: exact, theta: 0.001}"
    text = fitted(Table("t", ["loss", "accuracy %"], [[long, "1.00"], ["task", "2.00"]]), 80)
    row = next(line for line in text.splitlines() if line.endswith("1.00"))
    assert row.startswith("loss.terms.kern")
    assert "…" in row
    assert f"- loss: {long}\n" in text


def table(random_: random.Random) -> Table:
    words = [
        "x",
        "nonlinearity",
        "0.001",
        "\N{EN DASH}",
        "12.34 ± 0.56",
        "a longer text of words",
        "名前" * 9,
    ]
    words += ["loss.terms.kernel.mixture", "[31mred", "y" * 70, ""]
    columns, rows = random_.randint(1, 14), random_.randint(0, 5)
    header = [random_.choice(words) for _ in range(columns)]
    texts = [[random_.choice(words) for _ in header] for _ in range(rows)]
    return Table(random_.choice(words), header, texts, random_.sample(words, 3))


@pytest.mark.parametrize("seed", range(20))
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(seed: int) -> None:
    made = table(random.Random(seed))
    for width in range(20, 201, 3):
        text = fitted(made, width)
        assert max(map(cell_len, text.splitlines()), default=0) <= width
        assert "\x1b" not in text
        if width >= 60:
            told = "".join(text.split())
            for row in made.rows:
                for cell in row:
                    assert (
                        cell == "\N{EN DASH}" or "".join(cell.replace("\x1b", " ").split()) in told
                    )


def test_words_and_letters_of_two_columns() -> None:
    assert wrapped("a bc def", 4) == ["a bc", "def"]
    assert wrapped("abcdef gh", 4) == ["abcd", "ef", "gh"]
    assert all(cell_len(line) <= 7 for line in wrapped("名前の長い名前の長い", 7))
    for width in range(1, 30):
        for text in ("quantizer.t_min=0.001", "名前の長い名前", "ab", ""):
            assert cell_len(shorter(text, width)) <= width
    assert shorter("quantizer.t_min=0.001", 11) == "quant…0.001"
