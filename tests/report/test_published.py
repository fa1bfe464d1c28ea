"""The published numbers of the suite are complete and well-formed; bad files are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnnbench.report.published import is_plain, is_verified, load_published, validate

FOLDER = Path(__file__).parents[2] / "results" / "published"
FILES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_the_ten_files() -> None:
    assert {path.stem for path in FILES} == {
        *("adabin_cifar10", "adabin_imagenet", "adabin_voc", "adabin_native_cifar10"),
        *("bonn_cifar", "bonn_ablation", "bonn_imagenet", "bonn_lambda_theta"),
        "bonn_efficiency",
        "extra_methods",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_schema(path: Path) -> None:
    content = load_published(path)
    known = {str(source["id"]) for source in content["sources"]}
    assert known
    assert content["metric"]["name"] in {"top1", "map", "compression"}


def test_known_numbers() -> None:
    """Figures that the papers and READMEs are known for."""

    def value(stem: str, key: str, **wanted: Any) -> float:
        rows = load_published(FOLDER / f"{stem}.yaml")["rows"]
        (row,) = (r for r in rows if is_plain(r) and wanted.items() <= r.items())
        return row["values"][key]

    assert value("adabin_cifar10", "top1", method="adabin", backbone="resnet20") == 88.2
    assert value("adabin_cifar10", "top1", method="adabin", backbone="resnet18") == 93.1
    assert value("adabin_native_cifar10", "top1", method="adabin") == 88.1
    assert value("adabin_imagenet", "top5", method="adabin", backbone="resnet18") == 84.3
    assert value("bonn_imagenet", "top1", method="bonn") == 59.3
    assert value("bonn_efficiency", "compression", method="bonn") == 11.1
    narrow = {"method": "bonn", "stages": "16-16-32-64", "best_of_sweep": True}
    assert value("bonn_cifar", "top1", dataset="cifar10", **narrow) == 87.34
    assert value("bonn_cifar", "top1", dataset="cifar100", **narrow) == 60.91


def test_a_cell_can_be_verified_in_an_unverified_row() -> None:
    row = {"verified": False, "verified_values": ["top1"]}
    assert is_verified(row, "top1")
    assert not is_verified(row, "top5")
    assert is_verified({"verified": True}, "top5")


def _set(*path: Any, value: Any) -> Callable[[Any], None]:
    def damage(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return damage


BAD = {
    "missing file key": (lambda c: c.pop("paper"), r"t.yaml: missing key\(s\) \['paper'\]"),
    "unknown file key": (_set("papper", value=1), r"unknown key\(s\) \['papper'\]; valid: \['met"),
    "no rows": (_set("rows", value=[]), "t.yaml: key 'rows': List should have at least 1 item"),
    "missing row key": (
        lambda c: c["rows"][1].pop("bits"),
        r"row 2 \(slb, resnet20\): missing key\(s\) \['bits'\]",
    ),
    "mistyped row key": (
        _set("rows", 0, "verifed", value=True),
        r"row 1 \(adabin, resnet20\): unknown key\(s\) \['verifed'\]; valid: \['alternates'",
    ),
    "bits as text": (_set("rows", 0, "bits", value="1/1"), r"row 1 \(adabin, resnet20\): key 'b"),
    "half a bit": (_set("rows", 0, "bits", value={"w": 0.5, "a": 1}), "key 'bits.w': .* integer"),
    "no bit": (_set("rows", 0, "bits", value={"w": 0, "a": 1}), "key 'bits.w': .*greater than 0"),
    "text for a number": (
        _set("rows", 0, "values", value={"top1": "88"}),
        "key 'values.top1': Input should be a valid number",
    ),
    "unknown metric": (_set("rows", 0, "values", value={"top2": 1.0}), "unknown metric 'top2'"),
    "fraction": (_set("rows", 0, "values", value={"top1": 882}), "is a percentage"),
    "no source": (_set("rows", 1, "verified", value=True), "'source' is empty"),
    "verified as text": (
        _set("rows", 0, "verified", value="yes"),
        "key 'verified': Input should be a valid boolean, got 'yes'",
    ),
    "kind": (_set("rows", 0, "source_kind", value="web"), "'source_kind': Input should be 'own'"),
    "no kind": (lambda c: c["rows"][0].pop("source_kind"), "'source_kind' must be given"),
    "training": (_set("rows", 0, "training", value="three"), "'training': Input should be 'two_"),
    "verified_values": (_set("rows", 1, "verified_values", value=["top5"]), "not in 'values'"),
    "alternates": (_set("rows", 0, "alternates", value=[{"values": {}}]), "key 'alternates.0"),
    "losses": (_set("rows", 0, "losses", value={"kernel": 1}), "key 'losses.kernel': .*boolean"),
    "hyper": (_set("rows", 0, "hyper", value={"lambda": "1e-4"}), "'hyper.lambda': .*number"),
    "best": (_set("rows", 0, "best_of_sweep", value="yes"), "'best_of_sweep': .*boolean"),
    "not a mapping": (_set("protocol", value=[]), "key 'protocol': .*dictionary"),
    "a run of no group": (
        _set("rows", 0, "run", value={"quantizer": "bnn", "backbone": "vgg7", "quantiser": "x"}),
        "names no group of the config: .*quantiser",
    ),
    "a run of nothing": (_set("rows", 0, "run", value={}), "'run': must name at least quantizer"),
    "a run of no value": (
        _set("rows", 0, "run", "loss.lambda", value={"over": 0}),
        r"row 1 \(adabin, resnet20\): key 'run.loss.lambda",
    ),
    "a run of two": (
        _set("rows", 1, "run", value={"quantizer": "adabin", "backbone": "resnet20"}),
        r"row 1 \(adabin, resnet20\): key 'run' is another row's as well",
    ),
    "a run of a reproduction": (
        _set("rows", 0, "source_kind", value="reproduction"),
        "no run stands beside a reproduction",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_named(name: str, published: dict[str, Any]) -> None:
    validate(published, "t.yaml")
    damage, message = BAD[name]
    damage(published)
    with pytest.raises(ValueError, match=message):
        validate(published, "t.yaml")


def test_the_same_row_twice(published: dict[str, Any]) -> None:
    published["rows"].append(published["rows"][0] | {"values": {"top1": 88.1}})
    with pytest.raises(ValueError, match=r"row 3 \(adabin, resnet20\): stands twice"):
        validate(published, "t.yaml")


def test_files_that_are_absent_or_not_yaml(tmp_path: Path, published: dict[str, Any]) -> None:
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(published))
    assert load_published(tmp_path / "good.yaml") == published
    with pytest.raises(FileNotFoundError, match="the folder holds: good"):
        load_published(tmp_path / "god.yaml")
    (tmp_path / "bad.yaml").write_text("rows: [")
    with pytest.raises(ValueError, match=r"bad\.yaml: not readable as YAML"):
        load_published(tmp_path / "bad.yaml")
