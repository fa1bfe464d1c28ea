"""Maps of names: what their keys do, what is said of wrong ones, and what identities count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from bnnbench.config import backbone_from_config, build_backbone, load_option, load_quantizer
from bnnbench.records.checkpoint_maps import (
    BadMap,
    load_map,
    map_content,
    map_hash,
    ready_maps,
)
from bnnbench.records.checkpoints import BadCheckpoint, load_weights
from bnnbench.records.fingerprint import fingerprint, run_name

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A map of the user's own, from what its yaml holds; returns its path."""

    def written(content: Any, name: str = "mine.yaml") -> str:
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return written


def _applied(named: str, state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    return load_map(named).apply(state, own)


def test_each_key_does_what_the_page_says(write: Write) -> None:
    named = write(
        {
            "names": {
                r"^block(\d+)\.": "stages.{1//2}.{1%2}.",
                r"\.(w)(\d)$": {"to": ".conv{2+1}.weight", "permute": [1, 0]},
                r"\.shift$": {"to": ".threshold", "reshape": [-1], "sign": -1},
                r"\.flat$": {"to": ".weight", "reshape": "network"},
                r"\.1\.weight$": {"to": ".conv.weight", "dims": 4},
            },
            "drop": [r"^unused\."],
            "add": {r"\.slope$": 0.25, "flag": True},
        }
    )
    weight = torch.arange(6.0).view(2, 3)
    state = {
        "block5.w0": weight,
        "block2.shift": torch.tensor([[1.0], [2.0]]),
        "block3.flat": weight.flatten(),
        "a.1.weight": torch.ones(1, 1, 1, 1),
        "b.1.weight": torch.ones(1),
        "unused.weight": torch.ones(1),
        "kept": torch.ones(2),
    }
    own = {
        "stages.1.1.weight": torch.zeros(3, 2),
        "act.slope": torch.zeros(2),
        "flag": torch.tensor(False),
        "kept": torch.zeros(2),
    }
    found = _applied(named, state, own)
    assert found.keys() == {
        "stages.2.1.conv1.weight",
        "stages.1.0.threshold",
        "stages.1.1.weight",
        "a.conv.weight",
        "b.1.weight",
        "kept",
        "act.slope",
        "flag",
    }
    assert torch.equal(found["stages.2.1.conv1.weight"], weight.T)
    assert found["stages.1.0.threshold"].tolist() == [-1.0, -2.0]
    assert found["stages.1.1.weight"].tolist() == weight.view(3, 2).tolist()
    assert found["act.slope"].tolist() == [0.25, 0.25]
    assert found["flag"].dtype == torch.bool
    assert bool(found["flag"])
    assert found["kept"].tolist() == [1.0, 1.0]  # what the checkpoint has is not replaced


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("names: [", "it is no yaml: .*line 1"),
        ("", "a map is a yaml file with names, drop"),
        ("- a", "a map is a yaml file with names, drop"),
        ({"name": {"a": "b"}}, "name is no key of a map, names is; choose among"),
        ({"names": ["a"]}, r"names=\['a'\]: give a mapping of patterns to names"),
        ({"names": {"a(": "b"}}, r"names: 'a\(' is no pattern: missing \)"),
        ({"names": {"a": 3}}, "names 'a': give a name, or {to: <name>, dims"),
        ({"names": {"a": {"reshape": [1]}}}, "names 'a': give a name"),
        ({"names": {"a": {"to": "b", "shape": [1]}}}, "shape is no key of a map, reshape is"),
        ({"names": {"a": "{1}"}}, r"names 'a': \{1\} of '\{1\}' is no group of it"),
        ({"names": {"(a)": "{1*2}"}}, r"'\{1\*2\}' of '\{1\*2\}' is none of \{1\}, \{1-1\}"),
        ({"names": {"a": {"to": "b", "sign": 0}}}, "sign=0: give 1 or -1"),
        ({"names": {"a": {"to": "b", "reshape": "flat"}}}, "reshape='flat': give network, or"),
        ({"names": {"a": {"to": "b", "permute": [0, 2]}}}, r"permute=\[0, 2\]: give an order"),
        ({"names": {"a": {"to": "b", "join": 0}}}, "join=0: give a place, 1 or more"),
        ({"names": {"a": {"to": "b", "dims": "4"}}}, "dims='4': give a number of axes"),
        ({"drop": "a"}, "drop='a': give a list of patterns"),
        ({"drop": ["["]}, r"drop: '\[' is no pattern"),
        ({"add": {"a": "zero"}}, "add={'a': 'zero'}: give a mapping of patterns to numbers"),
        ({"mean": 0.5, "drop": []}, "mean=0.5: give a list of numbers"),
    ],
)
def test_a_wrong_map_is_told_in_a_line(write: Write, content: Any, words: str) -> None:
    named = write(content)
    with pytest.raises(BadMap, match=words) as refused:
        load_map(named)
    assert str(refused.value).startswith(f"checkpoint_map={named}: ")
    assert "\n" not in str(refused.value)


def test_joined_tensors_stand_in_their_order_and_take_the_networks_form(write: Write) -> None:
    named = write(
        {
            "names": {
                "^last$": {"to": "w", "join": 2, "reshape": "network"},
                "^first$": {"to": "w", "join": 1, "reshape": "network"},
            }
        }
    )
    state = {"last": torch.tensor([[4.0], [5.0]]), "first": torch.tensor([[1.0], [2.0]])}
    found = _applied(named, state, {"w": torch.zeros(2, 2)})
    assert found["w"].tolist() == [[1, 2], [4, 5]]


def test_a_map_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="=reactnett: there is no such map, reactnet is; "):
        load_map("reactnett")
    with pytest.raises(FileNotFoundError, match=r"=no\.yaml: there is no such file"):
        load_map("no.yaml")


def test_tensors_that_a_map_does_not_fit(write: Write) -> None:
    one = write({"names": {"^[ab]$": "c"}}, "one.yaml")
    with pytest.raises(BadMap, match=r"one\.yaml: a and b become c"):
        _applied(one, {"a": torch.ones(1), "b": torch.ones(1)}, {})
    half = write({"names": {"^a$": "c", "^b$": {"to": "c", "join": 2}}}, "half.yaml")
    with pytest.raises(BadMap, match=r"half\.yaml: a and b become c"):
        _applied(half, {"a": torch.ones(1), "b": torch.ones(1)}, {})
    flat = write({"names": {"a": {"to": "c", "reshape": [5]}}}, "flat.yaml")
    with pytest.raises(
        BadMap, match=r"a of shape \(3,\), by the pattern 'a': shape '\[5\]' is inv"
    ):
        _applied(flat, {"a": torch.ones(3)}, {})
    turned = write({"names": {"a": {"to": "c", "permute": [1, 0]}}}, "turned.yaml")
    with pytest.raises(BadMap, match=r"a of shape \(3,\), by the pattern 'a'"):
        _applied(turned, {"a": torch.ones(3)}, {})


def test_every_ready_map_is_read() -> None:
    assert {"adabin", "irnet", "recu", "reactnet"} < set(ready_maps())
    for name in ready_maps():
        assert load_map(name).name == name


def test_what_nothing_took_is_told_with_the_nearest_names(write: Write, tmp_path: Path) -> None:
    net = build_backbone("resnet20", "fp32")
    state = {k.replace("stages.0", "stage0"): v for k, v in net.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(BadCheckpoint) as refused:
        load_weights(net, tmp_path / "a.pth", named=write({"names": {"^none": ""}}))
    line = str(refused.value)
    assert "a.pth, read with checkpoint_map=" in line
    assert "30 missing, first stages.0.0.conv1.weight; 36 unexpected, " in line
    assert "first stage0.0.conv1.weight (nearest stages.0.0.conv1.weight), stage0.0.bn1.w" in line
    assert "\n" not in line
    load_weights(net, tmp_path / "a.pth", named=write({"names": {r"^stage(\d)": "stages.{1}"}}))


def test_another_number_of_classes_starts_from_the_body(tmp_path: Path) -> None:
    other = build_backbone("resnet20", "fp32", num_classes=7)
    torch.save({"net": other.state_dict()}, tmp_path / "a.pth")
    net = build_backbone("resnet20", "xnor", downsample="pad")
    fresh = net.state_dict()["fc.weight"].clone()
    with pytest.raises(BadCheckpoint, match=r"knows 7 classes, the network 10: .*_map=body"):
        load_weights(net, tmp_path / "a.pth", strict=False)
    load_weights(net, tmp_path / "a.pth", strict=False, named="body")
    own = net.state_dict()
    assert torch.equal(own["fc.weight"], fresh)
    assert torch.equal(
        own["stages.1.0.conv1.weight"], other.state_dict()["stages.1.0.conv1.weight"]
    )
    with pytest.raises(BadCheckpoint, match=r"2 missing, first fc\.weight"):
        load_weights(net, tmp_path / "a.pth", named="body")  # an evaluation needs all of it


def test_body_leaves_names_to_the_ready_maps(tmp_path: Path) -> None:
    net = build_backbone("resnet20", "fp32")
    theirs = {
        k.replace("stages.0", "layer1")
        .replace("stages.1", "layer2")
        .replace("stages.2", "layer3")
        .replace("fc.", "linear."): torch.full_like(v, 0.5)
        for k, v in build_backbone("resnet20", "fp32", num_classes=3).state_dict().items()
    }
    torch.save(theirs, tmp_path / "a.pth")
    load_weights(net, tmp_path / "a.pth", strict=False, named="body")
    assert bool((net.state_dict()["stages.2.1.conv2.weight"] == 0.5).all())
    assert not bool((net.state_dict()["fc.weight"] == 0.5).any())


def test_an_identity_counts_what_a_map_does(compose: Any, write: Write, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"weights")
    first = write({"names": {"a": "b"}}, "first.yaml")

    def of(*words: str) -> str:
        return fingerprint(compose(f"init_from={file}", *words))

    plain = of()
    assert of("checkpoint_map=null") == plain
    mapped = of(f"checkpoint_map={first}")
    same = write("# a comment\nnames: {'a': b}\nmean: [0.5]\n", "second.yaml")
    assert of(f"checkpoint_map={same}") == mapped != plain
    assert len({plain, mapped, of("checkpoint_map=reactnet"), of("checkpoint_map=irnet")}) == 4
    write({"names": {"a": "c"}}, "first.yaml")
    assert of(f"checkpoint_map={first}") != mapped
    assert map_hash("reactnet") == map_hash("reactnet")
    assert map_content("reactnet")["detect"]


def test_a_map_without_a_checkpoint_is_refused(compose: Any) -> None:
    from bnnbench.runs.preflight import check_settings

    with pytest.raises(
        ValueError, match="=irnet: there is no checkpoint to read with it; set init"
    ):
        check_settings(compose("checkpoint_map=irnet"))
    assert "irnet" not in run_name(compose("checkpoint_map=irnet"))


def test_an_unnamed_map_is_looked_for_only_where_names_differ(tmp_path: Path) -> None:
    """timm's own ResNets have the names that a ready map would change."""
    import timm

    model = timm.create_model("resnet10t", num_classes=10)
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    size = {"num_classes": 10, "in_channels": 3, "image_size": 32}
    node = load_option("backbone", "timm", {"name": "resnet10t", **size})
    net = backbone_from_config(node, load_quantizer("fp32"))
    load_weights(net, tmp_path / "a.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(net.state_dict()[f"model.{key}"], value), key
