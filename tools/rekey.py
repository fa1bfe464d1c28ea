"""Give results that were written before version 2 their fingerprints and names of today.

    python tools/rekey.py results        # the committed ones: runs, sweeps, figures and every link
    python tools/rekey.py logs           # finished runs of your own: their folders and sweeps

A result is taken only where its old fingerprint is the hash of the config that it stores; then that
config is brought to today's form and hashed by today's rule. No number is touched. What is done
already is left alone, so the script may be run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.errors import HydraException  # noqa: E402

from bnnbench import resolvers  # noqa: E402
from bnnbench.config import conf_dir  # noqa: E402
from bnnbench.records import fingerprint  # noqa: E402
from bnnbench.records.names import is_name  # noqa: E402
from bnnbench.records.schema import migrate  # noqa: E402
from bnnbench.records.store import Cell, write_json  # noqa: E402
from bnnbench.sweep.manifest import manifest  # noqa: E402
from checkouts import Checkouts  # noqa: E402

TEXTS = ("README.md", "docs/**/*.md", "results/**/*.md", "conf/table/*.yaml", "data/README.md")


@dataclass
class Rekeyed:
    """New names by old ones, the results under their new names, and what was left, and why."""

    names: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


def rekeyed(result: dict[str, Any], where: Path, old: Checkouts) -> dict[str, Any]:
    """A result of version 1 as one of version 2, under its fingerprint and name of today.

    Raises:
        ValueError: its fingerprint is not that of its config.
    """
    text = json.dumps(result["config"], sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != result["fingerprint"]:
        raise ValueError(f"{where}: the fingerprint is not that of the config it stores")
    new = migrate(result)
    new["config"] = _config_of_today(new)
    new["choices"] |= {"recipe": new["config"]["recipe"]["name"]}
    for stage in new.get("stages") or []:
        stage["config"]["recipe"]["name"] = new["config"]["recipe"]["name"]
    new["fingerprint"] = fingerprint.digest(new["config"])
    new["name"] = _name(new)
    commit = (new.get("git") or {}).get("commit")
    if commit:
        new["source_hash"] = old.hash_at(commit, new["config"])
    return new


def _config_of_today(result: dict[str, Any]) -> dict[str, Any]:
    """The stored config with what it left out, and called native only where that is true."""
    config = result["config"] | {"world_size": 1, "callbacks": {}}
    typed = dict(word.lstrip("+").partition("=")[::2] for word in result["overrides"])
    if typed.get("compile", "auto") != "auto":
        config["compile"] = typed["compile"].lower() == "true"
    if config["recipe"]["name"] == "native":
        groups = ("quantizer", "dataset", "backbone")
        chosen = [_word(group, config[group]["name"]) for group in groups]
        now = compose("train", [*chosen, "recipe=native"])
        config["recipe"] = config["recipe"] | {"name": now.recipe.name}
    return config


def _word(key: str, value: str) -> str:
    """An override out of a file. Raises ValueError for one that looks beyond conf/."""
    group = "." not in key and key not in ("seed", "init_from")
    if not re.fullmatch(r"[\w.]+", key) or key.startswith("hydra") or "${" in value:
        raise ValueError(f"{key}={value} is no override of a run")
    if group and not is_name(value):
        raise ValueError(f"{key}={value} is no option of a group")
    return f"{key}={value}"


def _name(result: dict[str, Any]) -> str:
    groups = ("dataset", "backbone", "quantizer", "loss", "recipe")
    words = [fingerprint.choice(result["config"], group) for group in groups]
    return "_".join([*words, f"s{result['seed']}", result["fingerprint"][:8]]).replace("/", "-")


def rekey_runs(folder: Path, commits: Checkouts) -> Rekeyed:
    """Rewrite and rename every result of a folder: `<run>.json`, or `<run>/result.json`.

    What cannot be taken is named on stderr and left as it is.
    """
    done = Rekeyed()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/result.json")]):
        try:
            old, result = _rekey_run(file, commits)
        except (OSError, ValueError, LookupError, TypeError) as error:
            done.left.append(f"{file}: {type(error).__name__}: {error}")
            continue
        if old != result["name"]:
            done.names[old] = result["name"]
        done.results[result["name"]] = result
    return done


def _rekey_run(file: Path, commits: Checkouts) -> tuple[str, dict[str, Any]]:
    """The name it had and the result it is now; one of version 2 stays as it is."""
    result = json.loads(file.read_text())
    if result.get("schema") != 1:
        return result["name"], result
    new = rekeyed(result, file, commits)
    source = file.parent if file.name == "result.json" else file
    target = source.with_name(new["name"] + source.suffix * (source == file))
    if target.exists() and target != source:
        raise FileExistsError(f"{target} is there already: the run was trained again; delete one")
    write_json(file, new)
    source.rename(target)
    return result["name"], new


def rekey_manifest(old: dict[str, Any], done: Rekeyed) -> dict[str, Any]:
    """A sweep of version 1 as one of version 2: cells that nobody has run are composed anew."""
    cells = [_cell(cell, done) for cell in old["cells"]]
    new = manifest(old["name"], cells, old["table"], old["scale"], old["scale_notes"])
    return new | {"command": old["command"], "swept": old["swept"]} | _titles(old)


def _titles(old: dict[str, Any]) -> dict[str, Any]:
    return {key: old[key] for key in ("title",) if key in old}


def _cell(cell: dict[str, Any], done: Rekeyed) -> Cell:
    run: str = cell["run"]
    name = done.names.get(run, run)
    result = done.results.get(name)
    if result is not None:
        settings = fingerprint.flattened(result["config"])
        return Cell(cell["overrides"], name, result["fingerprint"], settings, result["headline"])
    typed = cell["overrides"].items()  # without the + of keys that a config does not have
    groups = [_word(key, value) for key, value in typed if "." not in key]
    cfg = compose("train", [*groups, *(f"++{_word(*pair)}" for pair in typed if "." in pair[0])])
    identity = fingerprint.fingerprinted(cfg)
    return Cell(
        cell["overrides"],
        fingerprint.run_name(cfg, identity),
        fingerprint.digest(identity),
        fingerprint.flattened(identity),
        resolvers.headline(cfg),
    )


def _manifests(folder: Path) -> Iterator[Path]:
    yield from sorted([*folder.glob("*.json"), *folder.glob("*/sweep.json")])


def _follow_links(names: dict[str, str]) -> None:
    """Every file that names a run of the old name, and every picture of one."""
    if not names:
        return
    pattern = re.compile("|".join(map(re.escape, names)))
    for file in (file for glob in TEXTS for file in ROOT.glob(glob)):
        text = file.read_text()
        if (new := pattern.sub(lambda found: names[found[0]], text)) != text:
            file.write_text(new)
    for picture in (ROOT / "results" / "figures").iterdir():
        if found := pattern.match(picture.name):
            picture.rename(picture.with_name(names[found[0]] + picture.name[found.end() :]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Re-key the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="results, or a log folder with runs and sweeps")
    folder = parser.parse_args(arguments).folder.resolve()
    resolvers.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"), Checkouts() as commits:
        done = rekey_runs(folder / "runs", commits)
        if folder == ROOT / "results":
            _follow_links(done.names)
        sweeps = 0
        for file in _manifests(folder / "sweeps"):
            try:
                old = json.loads(file.read_text())
                if old.get("schema") == 1:
                    write_json(file, rekey_manifest(old, done))
                    sweeps += 1
            except (OSError, ValueError, LookupError, HydraException) as error:
                done.left.append(f"{file}: {type(error).__name__}: {error}")
    print(f"{len(done.names)} runs and {sweeps} sweeps have new names or fingerprints")
    for line in done.left:
        print(f"left as it is: {line}", file=sys.stderr)
    raise SystemExit(1 if done.left else 0)


if __name__ == "__main__":
    main()
