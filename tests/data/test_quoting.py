"""Overrides to paste: what a shell and Hydra make of them is what they say."""

import shlex
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bnnbench.data.quoting import quoted_override

NAMES = [
    "cat", "a b", "R&B", "it's", 'say "x"', "a,b", "[x]", "{y}", "(z)", "Bär", "狗", "null", "True",
    "nan", "1e3", "007", "-5", "3.5", "1_000", "a:b", "a=b", "#1", "~", "*", "$HOME", "`ls`", "!x",
    "back\\", 'back\\"', "\\", "\\\\", "${x}", "\\${x}", "a;b|c>d", "/a/b-c.d", "a/b", "%", "+",
    "?", "é", "", "'", '"',
]  # fmt: skip


def read(line: str) -> list[str]:
    """A pasted list as a config has it, word by word."""
    (word,) = shlex.split(line)
    override = OverridesParser.create().parse_override(word)
    assert override.key_or_group == "dataset.classes"
    return list(OmegaConf.create({"names": override.value()}).names)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back(name: str) -> None:
    assert read(quoted_override("dataset.classes", [name])) == [name]


def test_a_list_comes_back() -> None:
    assert read(quoted_override("dataset.classes", NAMES)) == NAMES


def test_numbers_come_back_as_such() -> None:
    assert read(quoted_override("dataset.classes", ["0", "12"])) == [0, 12]


def test_a_text_comes_back() -> None:
    (word,) = shlex.split(quoted_override("dataset.folder", "/my data/a,b"))
    override = OverridesParser.create().parse_override(word)
    assert (override.key_or_group, override.value()) == ("dataset.folder", "/my data/a,b")


def test_bash_reads_it_as_one_word() -> None:
    line = quoted_override("dataset.classes", NAMES)
    script = f"printf '%s\\n' {line}"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert [told.stdout.rstrip("\n")] == shlex.split(line)


def test_plain_words_stay_plain() -> None:
    assert quoted_override("k", "cat") == "k=cat"
    assert quoted_override("k", ["cat", "dog_2", "0"]) == "'k=[cat,dog_2,0]'"
