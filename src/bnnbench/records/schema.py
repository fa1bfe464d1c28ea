"""The form of a run's ``result.json`` and of a stage's ``stage.json``: typed, described, checked.

``Result`` is the form as it is now; ``migrate`` brings older files to it. Readers use the plain
dictionary that ``check_result`` returns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bnnbench.records.limits import limited
from bnnbench.records.store import SCHEMA, DamagedResult, headline_key

Number = Annotated[float, Field(allow_inf_nan=False)]
Values = dict[str, Number | None]
WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null"}
WORDS |= {Any: "anything", dict: "object", list: "list"}
# Of a network's structure, what its twin in full precision has as well.
TWINS_TOO = ("shortcut", "downsample", "nonlinearity", "head_norm", "widths", "width", "kwargs")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Reliability(_Part):
    """Bins of the highest probability, of equal width from 0 to 1."""

    images: list[Number] = Field(description="whose highest probability is in the bin")
    confidence: list[Number | None] = Field(description="their mean highest probability")
    accuracy: list[Number | None] = Field(description="share of them that are recognised")


class Metrics(_Part):
    """What a training was for."""

    last: Values = Field(description="of the last epoch's weights; null where one is undefined")
    best: Values = Field(
        description="headline and epoch of the best evaluation; {} without one, or if undefined"
    )


class Classes(_Part):
    """Per-class accuracy of a classifier."""

    names: list[str] = Field(description="of the classes, in the order of their labels")
    accuracy: list[Number | None] = Field(
        description="share of a class's images that are recognised; null for a class without images"
    )


class Time(_Part):
    """How long a training took."""

    wall_s: Number = Field(description="seconds of all epochs with their evaluations")
    train_s: Number = Field(description="seconds of training alone")
    cpu_s: Number | None = Field(
        default=None,
        description="processor time of training alone, by all processes that train; null on "
        "other devices, and where it was not measured",
    )
    images_per_s: Number | None = Field(description="training images a second, over all processes")
    train_memory_mb: Number | None = Field(
        default=None,
        description="peak memory while it trained, of one process: of the GPU where one is used, "
        "else resident; null where it was not measured",
    )
    peak_memory_mb: Number | None = Field(
        default=None,
        description="of older results: the peak of the process, which may be an earlier run's",
    )


class Continued(_Part):
    """The finished run that this one went on from."""

    name: str = Field(description="its name")
    fingerprint: str = Field(description="its fingerprint", pattern="^[0-9a-f]{64}$")
    epochs: int = Field(description="that it was trained for; the history holds them", ge=1)
    lr: list[Number] = Field(
        description="learning rate of its last step, and of the next one, by the longer schedule"
    )


class Git(_Part):
    """The state of the checkout; null outside one."""

    commit: str | None = Field(description="of the checkout")
    dirty: bool | None = Field(description="whether files differed from it")


class Export(_Part):
    """The packed file of a run's network, as ``bnnbench export`` wrote it."""

    bytes: int = Field(description="of the file", ge=1)
    header_bytes: int = Field(description="of these before the first tensor", ge=1)
    sha256: str = Field(description="of the file", pattern="^[0-9a-f]{64}$")
    work: str = Field(description="name of what it computes, whatever its numbers are")
    half: bool = Field(description="whether layers in full precision were stored in 16 bits")


class StagePart(_Part):
    """One stage of a run in stages."""

    name: str = Field(description="as in the recipe")
    metrics: Metrics = Field(description="as of the whole run")
    epochs: int = Field(description="finished epochs", ge=0)
    time: Time = Field(description="as of the whole run")
    config: dict[str, Any] = Field(description="of this stage alone")
    statistics: dict[str, Any] = Field(description="as of the whole run")


class Result(_Part):
    """One run."""

    version: Literal[2] = Field(alias="schema", description="version of this form")
    name: str = Field(description="the run's folder")
    fingerprint: str = Field(
        description="SHA-256 of the part of the config that identifies the run",
        pattern="^[0-9a-f]{64}$",
    )
    config: dict[str, Any] = Field(description="that part of the config, resolved")
    choices: dict[str, str] = Field(
        description="option of quantizer, loss, backbone, dataset, recipe and, with one, teacher"
    )
    seed: int = Field(description="of the run")
    overrides: list[str] = Field(description="what was typed for it")
    command: str = Field(description="the same as a command line")
    tags: list[Any] = Field(description="what the user marked it with")
    source_hash: str = Field(description="SHA-256 of the code of method, optimiser and losses")
    source_proofs: list[dict[str, Any]] = Field(
        description="renewals of `source_hash`, each with the proof that no number changes"
    )
    data_stamp: str | None = Field(
        description="SHA-256 of the content of the data, `sha256:<hex>`; null: unknown",
        pattern="^sha256:[0-9a-f]{64}$",
    )
    structure: dict[str, Any] = Field(description="what the network is built of besides the method")
    bits: dict[str, int] = Field(description="of weights w, activations a, and gradients g, e")
    bases: dict[str, int] = Field(description="binary tensors that a value is a sum of, by side")
    started_from: str | None = Field(
        description="of `recipe.start=twin`: the full-precision run whose weights it had at first",
        default=None,
    )
    twin_of: str | None = Field(
        description="of a twin that was trained first for another run: that run, whose `command` "
        "and `overrides` stand here",
        default=None,
    )
    headline: Literal["test/acc", "test/map", "val/acc", "val/map"] | None = Field(
        description="the metric that stands for the run; null where it only counted"
    )
    metrics: Metrics = Field(description="of the final evaluation, and the best one on the way")
    classes: Classes | None = Field(
        description="accuracy by class in the final evaluation; null for detectors and old results"
    )
    reliability: Reliability | None = Field(
        description="of a classifier in the final evaluation, a value a bin of confidence",
        default=None,
    )
    history: dict[str, list[Number | None]] = Field(
        description="a list a metric, a value an epoch; null where the epoch does not have it"
    )
    epochs: int = Field(description="finished epochs", ge=0)
    planned_epochs: int | None = Field(
        description="what the config asked for; null where the run is limited by steps"
    )
    ended: str | None = Field(
        description="null: ran to its planned length on all data; else why not, such as "
        "`max_time=00:00:10:00`, `early_stop: val/acc` or `limit_train_batches=3`, joined by `; `"
    )
    continued: Continued | None = Field(
        description="the finished run that this one went on from; null: from the beginning",
        default=None,
    )
    train_images: int | None = Field(
        description="of a training epoch, fewer where a limit says so", ge=0, default=None
    )
    test_images: int | None = Field(
        description="of the final evaluation, fewer where a limit says so", ge=0, default=None
    )
    normalisation: dict[str, list[Number]] | None = Field(
        description="mean and std of each channel that images had, of pixels scaled to [0, 1]",
        default=None,
    )
    world_size: int | None = Field(description="processes that trained it together", ge=1)
    operations: dict[str, Number] = Field(description="multiply-accumulates and sizes")
    statistics: dict[str, Any] | None = Field(description="of weights, by layer", default=None)
    diagnostics: dict[str, Any] | None = Field(
        description="last epoch's of `callbacks=diagnostics`, a list a value, one entry a layer",
        default=None,
    )
    time: Time | None = Field(description="how long it took", default=None)
    precision: str | None = Field(description="of the trainer, such as 32-true", default=None)
    compiled: bool | None = Field(description="whether by torch.compile", default=None)
    device: str | None = Field(description="processor and threads, or GPU", default=None)
    versions: dict[str, str] = Field(description="of what decides a number")
    git: Git = Field(description="the code's commit")
    stages: list[StagePart] | None = Field(
        description="of a run in stages, each; the rest is the last one's", default=None
    )
    export: Export | None = Field(
        description="the packed file, where one was written; from `packed.json` beside the result",
        default=None,
    )


class StageRecord(Result):
    """One stage, while its run goes on; null for the only stage of an ordinary run."""

    stage: str | None = Field(description="its name; only in a stage's record, `stage.json`")


def check_result(content: dict[str, Any], where: str) -> dict[str, Any]:
    """A run's result in the present form.

    Args:
        content: of the file.
        where: its path, for messages.

    Raises:
        DamagedResult: it is no whole result; the message names file and field.
    """
    return _check(content, where, Result)


def check_record(content: dict[str, Any], where: str) -> dict[str, Any]:
    """A stage's record in the present form; see ``check_result``."""
    return _check(content, where, StageRecord)


def _check(content: dict[str, Any], where: str, form: type[Result]) -> dict[str, Any]:
    try:
        content = migrate(content)
        form.model_validate(content)
        _check_metrics(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise _damaged(where, f"{field}: {first['msg']}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(where, str(error) or "not a result") from error
    return content


def _damaged(where: str, reason: str) -> DamagedResult:
    return DamagedResult(f"{where}: damaged ({reason}); delete the file to run it again")


def _check_metrics(content: Mapping[str, Any]) -> None:
    last, headline, classes = content["metrics"]["last"], content["headline"], content["classes"]
    if content["epochs"] and not last:
        raise ValueError("metrics.last: a result without metrics is no result")
    if content["epochs"] and headline not in last:
        raise ValueError(f"headline: {headline} is not among metrics.last, {', '.join(last)}")
    if headline and last.get(headline) is not None and not 0 <= last[headline] <= 1:
        raise ValueError(f"metrics.last.{headline}: {last[headline]} is no share of 1")
    if len({len(column) for column in content["history"].values()}) > 1:
        raise ValueError("history: its metrics are not equally long")
    if classes and len(classes["names"]) != len(classes["accuracy"]):
        raise ValueError("classes: names and accuracy are not equally many")


def migrate(content: dict[str, Any]) -> dict[str, Any]:
    """A result of any earlier schema in the present one; the present one as it is.

    What was not recorded then is null. Identity (name, fingerprint, hash of the code) stays.

    Raises:
        ValueError: a schema that does not exist here.
    """
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError("not a result")
    if content["schema"] == SCHEMA:
        return content
    if content["schema"] != 1:
        raise ValueError(f"schema {content['schema']}, this version knows 1 and {SCHEMA}")
    content = finite(content)
    last, parts = content["metrics"]["last"], content.get("stages") or [content]
    last |= {name: None for name, value in last.items() if _is_undefined(name, value)}
    planned = [part["config"]["trainer"]["max_epochs"] for part in parts]
    limits = [f"{key}={value}" for key, value in limited(content["config"]["trainer"]).items()]
    return content | {
        "schema": SCHEMA,
        "headline": headline_key(last),
        "classes": None,
        "planned_epochs": sum(planned)
        if all(isinstance(n, int) and n >= 0 for n in planned)
        else None,
        "ended": "; ".join(limits) or None,
        "train_images": None if limits else content.get("train_images"),
        "test_images": None if limits else content.get("test_images"),
        "world_size": 1 if content["epochs"] else None,
        "data_stamp": None,
        "source_proofs": [],
    }


def _is_undefined(name: str, value: float | None) -> bool:
    return name.endswith("/coco_map") and value is not None and value < 0


def finite(value: Any) -> Any:
    """``value``, nested dictionaries and lists, with None for each nan and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def describe() -> str:
    """The fields of a result as a Markdown table: name, type, meaning."""
    rows = ["| field | type | meaning |", "|---|---|---|"]
    return "\n".join(rows + [f"| {' | '.join(row)} |" for row in _fields(StageRecord, "")])


def _fields(form: type[BaseModel], prefix: str) -> list[tuple[str, str, str]]:
    rows = []
    for key, field in form.model_fields.items():
        name = prefix + (field.alias or key)
        absent = "" if field.is_required() else "; may be absent"
        rows.append((f"`{name}`", _words(field.annotation), f"{field.description}{absent}"))
        if (inner := _form_in(field.annotation)) is not None:
            rows += _fields(inner, f"{name}{'[]' * (key == 'stages')}.")
    return rows


def _form_in(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((form for part in get_args(kind) if (form := _form_in(part))), None)


def _words(kind: Any) -> str:
    """A type in JSON's words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(part)}`" for part in parts)
    if origin is UnionType or origin is Union:
        return " or ".join(map(_words, parts))
    if origin is Annotated:
        return _words(parts[0])
    if origin in (dict, list):
        return f"{WORDS[origin]} of {_words(parts[-1])}"
    return WORDS.get(kind, "object")
