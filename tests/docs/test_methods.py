"""The page of methods: as fresh as the code, quoted from its sources; curves in closed form."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from bnnbench.config import load_quantizer, options
from methods import load_methods, page, read_header, read_yaml
from surrogates import draw_surrogates, side_curves

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
METHODS = [name for name in options("quantizer") if name != "fp32"]


@pytest.fixture(scope="module")
def text() -> str:
    return page(load_methods(), ROOT / "results" / "published")


def section(text: str, name: str) -> str:
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_committed_page_is_what_the_code_says(text):
    committed = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert committed == text, "docs/methods.md is stale: run make docs"


def test_every_method_has_a_section_and_a_small_plot(text):
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == METHODS
    plots = {path.stem: path.stat().st_size for path in (DOCS / "methods").glob("*.png")}
    assert sorted(plots) == METHODS, "docs/methods is stale: run make docs"
    assert max(plots.values()) < 15_000


def test_links_of_the_page_exist(text):
    local = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert len(local) > 2 * len(METHODS)
    assert not [link for link in local if not (DOCS / link).exists()]
    anchors = set(re.findall(r"\]\(#(\w+)\)", text))
    assert anchors == set(METHODS)


def test_a_section_quotes_header_yaml_structure_cost_and_papers(text):
    adabin = section(text, "adabin")
    assert "(Tu et al., ECCV 2022, arXiv [2208.08084](https://arxiv.org/abs/2208.08084))" in adabin
    assert "``beta_w -+ alpha_w``" in adabin
    assert "\n\n**Changed:** sign(0) = +1, an eps under alpha_w," in adabin
    assert "  - `t_min=1.0e-3`: first and last slope of the weights' estimator\n" in adabin
    assert "nonlinearity `maxout`, head_norm `true`, first `fp32`, last `fp32`" in adabin
    assert "downsample `conv` (on CIFAR-10; avgpool_conv in the authors' ImageNet" in adabin
    assert "W/A bits 1/1, bases 1/1; ResNet-20: 1.070e6 OPs, 0.0494 MB packed" in adabin
    assert re.search(r"cifar10 +\| resnet20 .* 88\.2 \| one step \| BEANet manuscript", adabin)
    assert re.search(r"imagenet \| resnet18 .* 66\.4 \| two step ", adabin)


def test_borrowed_files_are_quoted_once_and_linked(text):
    bwn, reactnet = section(text, "bwn"), section(text, "reactnet")
    assert "[`xnor.py`](../src/bnnbench/quantizers/xnor.py): XNOR-Net (Rastegari" in bwn
    assert "BWN, binary weight networks, arXiv" in bwn
    assert "activations real" in bwn
    assert "`BiRealWeight`](../src/bnnbench/quantizers/birealnet.py) of [birealnet]" in reactnet
    assert "magnitude-aware one multiplies" not in reactnet
    assert "1/1x2" in section(text, "ienet")


def test_recalled_numbers_are_marked(text):
    assert re.search(r"vgg_small \| LAB .*87\.7† \| one step ", section(text, "lab"))
    assert "†" not in section(text, "adabin")


def test_yaml_comments_belong_to_their_keys():
    head, keys = read_yaml(
        "# Net, paper.\n# Second line.\nname: net\n# A heading.\n"
        "slope: 1.0e-3 # first\n# and last\n"
        "weight:\n  _target_: x # inner\n# Another.\nfirst: fp32\nlast: ${a.b,1} # no: 2\n"
    )
    assert head == "Net, paper. Second line."
    assert {name: tuple(key)[1:] for name, key in keys.items()} == {
        "name": ("net", ""),
        "slope": ("1.0e-3", "first and last"),
        "weight": ("", ""),
        "first": ("fp32", ""),
        "last": ("${a.b,1}", "no: 2"),
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *(("dsq", "Ours: the"), ("bonn", "Changed: sign(0)"), ("birealnet", "Changed: sign(0)")),
        ("zhuang", ""),
    ],
)
def test_what_a_header_changed_stands_apart(name, changed):
    header = read_header(f"bnnbench.quantizers.{name}")
    assert " ".join(header.changed.split()).startswith(changed)
    assert bool(header.changed) == bool(changed)
    assert header.title.endswith((").", "bit.", "net."))
    assert not any("Changed:" in part or "Ours:" in part for part in header.body)


# The plotted curves against closed forms


def points(name: str, side: str, stage: str) -> list[np.ndarray]:
    curve = side_curves(load_quantizer(name))[side][stage]
    return [part.numpy() for part in curve]


def test_clip():
    x, value, gradient = points("bnn", "activations", "end")
    assert len(x) > 500
    assert (np.diff(x) >= 0).all()
    assert x[0] < -1.8
    assert 1.8 < x[-1] <= 2
    assert_array_equal(value, np.where(x >= 0, 1, -1))
    assert_array_equal(gradient, abs(x) < 1)


def test_approx_sign():
    x, value, gradient = points("birealnet", "activations", "end")
    assert_array_equal(value, np.where(x >= 0, 1, -1))
    assert_allclose(gradient, np.maximum(0, 2 - 2 * abs(x)), atol=1e-12)


@pytest.mark.parametrize(("stage", "t"), [("start", 0.1), ("middle", 1.0), ("end", 10.0)])
def test_error_decay_estimator(stage, t):
    x, _, gradient = points("irnet", "activations", stage)
    expected = max(1 / t, 1) * t * (1 - np.tanh(t * x) ** 2)
    assert_allclose(gradient, expected, rtol=1e-6, atol=1e-12)


def test_statistics_are_those_of_the_whole_filter():
    """The value of XNOR's weights: E|w| of the 576 weights, near that of a normal variable."""
    x, value, _ = points("birealnet", "weights", "end")
    assert_allclose(value, np.sign(x) * abs(value[0]))
    assert abs(value[0]) == pytest.approx(math.sqrt(2 / math.pi), abs=0.1)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("mcn", {"weights": 1}),
        ("adabin", {"weights": 3, "activations": 1}),
        ("bbb", {"weights": 1}),
    ],
)
def test_sides_and_stages(name, sides):
    """Real activations are left out; a side that no schedule moves has one stage."""
    curves = side_curves(load_quantizer(name))
    assert {side: len(stages) for side, stages in curves.items()} == sides


def test_draws_are_seeded():
    first, again = (points("fda", "weights", "start") for _ in range(2))
    assert_array_equal(first, again)


def test_a_plot(tmp_path):
    draw_surrogates(load_quantizer("irnet"), tmp_path / "plots" / "irnet")
    with Image.open(tmp_path / "plots" / "irnet.png") as image:
        assert image.width > 3 * image.height
