"""Prove that results still belong to the code: ``python tools/prove_code.py [--write]``.

For every result whose code hash is not the one of the code now, the run's layers and network are
probed (``tools/probe.py``) with the code of the result's commit and with the code now. Where every
digest agrees, bit for bit, nothing but the writing has changed: ``--write`` renews the result's
``source_hash`` and keeps the proof in ``source_proofs``. Options of the method that the run does
not use are probed as well; those that agree are named in the proof, those that do not are printed
and keep no run from its proof.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

from bnnbench.records.source import located, source_hash  # noqa: E402
from checkouts import Checkouts  # noqa: E402

PROBE = "outputs, gradients, three training steps"
# Values of the options that switch what a method computes.
OPTIONS: dict[str, dict[str, list[Any]]] = {
    "abcnet": {"weight_bases": [1, 3], "activation_bases": [1, 3]},
    "adabin": {"activation_center": ["paper", "reference"]},
    "admm": {"levels": ["binary", "ternary", "two", "four"], "projected": [False, True]},
    "biper": {"stage": [1, 2]},
    "birealnet": {"magnitude_aware": [False, True]},
    "bnn": {"stochastic": [False, True]},
    "bonn": {"gradient": ["paper", "autograd"], "scale": ["learned", "mean"]},
    "bwn": {"gradient": ["corrected", "paper", "lua"], "gradient_scale": [1, 36]},
    "dorefa": {"weight_bits": [1, 2, 32], "activation_bits": [1, 2, 32], "gradient_bits": [6, 32]},
    "mcn": {"planes": [1, 4], "scalar_planes": [False, True]},
    "pcnn": {"projections": [1, 3]},
    "reactnet": {"magnitude_aware": [False, True]},
    "tbn": {"version": [1, 2]},
    "wage": {"weight_bits": [2, 4], "activation_bits": [4, 8], "error_bits": [4, 8]},
    "xnor": {
        "gradient": ["corrected", "paper", "lua"],
        "gradient_scale": [1, 36],
        "input_scale": [False, True],
    },
    "zhuang": {"weight_bits": [2, 4, 32], "activation_bits": [2, 4, 32]},
}


@dataclass
class Claim:
    """A result and what became of it: ``fresh``, ``proven``, or why it is neither."""

    file: Path
    record: dict[str, Any]
    now: str
    key: str = ""
    status: str = ""
    why: str = ""
    digest: str = ""
    options: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        return str(self.record["git"]["commit"])

    @property
    def case(self) -> dict[str, Any]:
        """What is probed: the same for runs that differ by their seed alone."""
        config = copy.deepcopy(self.record["config"])
        config.pop("seed", None)
        config["dataset"].pop("seed", None)
        options = OPTIONS.get(config["quantizer"]["name"], {})
        precision = self.record.get("precision") or "32-true"
        return {"config": config, "precision": precision, "options": options}


def claims(folder: Path, names: Iterable[str]) -> list[Claim]:
    """The results in ``folder``, those of ``names`` where any are given."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*/result.json")])
    wanted = set(names)
    found = []
    for file in files:
        record = json.loads(file.read_text(encoding="utf-8"))
        if "config" in record and (not wanted or record["name"] in wanted):
            found.append(Claim(file, record, source_hash(record["config"])))
    return found


def compare_hashes(claim: Claim, old: Checkouts) -> None:
    """Fresh, or what keeps a result from being probed; nothing where it has to be."""
    if (foreign := next(foreign_code(claim.record["config"]), None)) is not None:
        claim.status, claim.why = "foreign", f"it would run {foreign!r}"
        return
    try:
        then = old.hash_at(claim.commit, claim.record["config"])
    except LookupError as error:
        claim.status, claim.why = "no commit", str(error)
        return
    proofs = claim.record.get("source_proofs") or []
    # Schema 1 was stamped in another way; the code is that of its commit all the same.
    stamp = then if claim.record["schema"] == 1 else claim.record["source_hash"]
    if claim.now == stamp:
        claim.status = "fresh"
    elif claim.record["git"]["dirty"]:
        claim.status, claim.why = "dirty", "the run's code was not that of its commit"
    elif stamp not in (then, *(proof["to"] for proof in proofs)):
        claim.status, claim.why = "foreign", "its stamp is not the hash of its commit"


def foreign_code(node: Any) -> Iterator[str]:
    """What a result's config would run that no commit of this package defines."""
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        if isinstance(value, Mapping | list):
            if key not in ("trainer", "callbacks"):  # a probe builds neither
                yield from foreign_code(value)
        elif key == "_target_" and value is None:  # a run's task, where it is the suite's own
            continue
        elif "${" in str(value) or (key == "_target_" and not _is_ours(str(value))):
            yield str(value)


def _is_ours(path: str) -> bool:
    return path.startswith("bnnbench.") and bool(located(path))


def run_probe(tree: Path, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``tools/probe.py`` says of the cases with the code in ``tree``."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "cases.json", Path(folder) / "digests.json"
        asked.write_text(json.dumps(cases))
        single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment = os.environ | single | {"PYTHONPATH": str(tree / "src")}
        command = [sys.executable, str(ROOT / "tools" / "probe.py"), str(asked), str(answered)]
        run = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"the probe of {tree} failed:\n{run.stderr}")
        found = json.loads(answered.read_text())
    if Path(found["code"]) != tree / "src" / "bnnbench":
        raise RuntimeError(f"the probe of {tree} took the code of {found['code']}")
    return found


def moved(node: Any) -> Any:
    """A config whose classes stand where they are now."""
    if isinstance(node, Mapping):
        return {k: _now(v) if k == "_target_" and v else moved(v) for k, v in node.items()}
    return [moved(entry) for entry in node] if isinstance(node, list) else node


def _now(path: str) -> str:
    found = located(path)
    return next(iter(found)) if path.startswith("bnnbench.") and len(found) == 1 else path


def judge(claim: Claim, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compare the digests of a result's code then and now."""
    for when, side in (("then", before), ("now", after)):
        if side["error"]:
            claim.status = "not probed"
            claim.why = f"{when}: {side['error'].strip().splitlines()[-1]}"
            return
    old, new = before["parts"], after["parts"]
    if differing := sorted(k for k in {*old, *new} if old.get(k) != new.get(k)):
        claim.status, claim.why = "differs", ", ".join(differing)
        return
    both = before["options"].keys() & after["options"].keys()
    claim.status = "proven"
    claim.digest = hashlib.sha256(json.dumps(new, sort_keys=True).encode()).hexdigest()
    claim.options = sorted(k for k in both if before["options"][k] == after["options"][k])
    claim.other = sorted(both - set(claim.options))


def prove(claimed: list[Claim], old: Checkouts) -> dict[str, str]:
    """Give every claim its status; returns the machine of the probes."""
    for claim in claimed:
        compare_hashes(claim, old)
    groups: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for claim in (claim for claim in claimed if not claim.status):
        text = json.dumps([claim.commit, claim.case], sort_keys=True)
        claim.key = hashlib.sha256(text.encode()).hexdigest()
        groups[claim.commit][claim.key] = claim.case | {"key": claim.key}
    before: dict[str, Any] = {}
    for commit, cases in groups.items():
        print(f"probing {len(cases)} runs of {commit[:8]}", file=sys.stderr, flush=True)
        before |= run_probe(old.at(commit), list(cases.values()))["found"]
    every = [case for cases in groups.values() for case in cases.values()]
    if not every:
        return {}
    print(f"probing these {len(every)} runs now", file=sys.stderr, flush=True)
    now = run_probe(ROOT, [case | {"config": moved(case["config"])} for case in every])
    for claim in (claim for claim in claimed if claim.key):
        judge(claim, before[claim.key], now["found"][claim.key])
    return now["machine"]


def renew(claim: Claim, commit: str, machine: Mapping[str, str]) -> None:
    """Write the stamp of the code now into the result, with its proof."""
    from bnnbench.records.store import write_json

    proof = {
        "from": claim.record["source_hash"],
        "to": claim.now,
        "old_commit": claim.commit,
        "new_commit": commit,
        "probe": PROBE,
        "digest": claim.digest,
        "options": claim.options,
        **machine,
    }
    proofs = [*(claim.record.get("source_proofs") or []), proof]
    write_json(claim.file, claim.record | {"source_hash": claim.now, "source_proofs": proofs})


def table(claimed: list[Claim]) -> str:
    """A line a result that is not fresh, and the counts."""
    lines = []
    for claim in sorted(claimed, key=lambda c: (c.status, c.commit, c.record["name"])):
        if claim.status != "fresh":
            other = f" (unused options differ: {', '.join(claim.other)})" if claim.other else ""
            line = f"{claim.status:10} {claim.commit[:8]} {claim.record['name']} {claim.why}{other}"
            lines.append(line.rstrip())
    counts: dict[str, int] = defaultdict(int)
    for claim in claimed:
        counts[claim.status] += 1
    total = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    return "\n".join([*lines, f"{len(claimed)} results: {total}"])


def clean_commit() -> str:
    """The commit of the code now. Raises SystemExit where the code differs from it."""
    git = ["git", "-C", str(ROOT)]
    status = [*git, "status", "--porcelain", "--", "src", "conf"]
    if subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip():
        raise SystemExit("src or conf differ from the commit: a proof names one, commit first")
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return head.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "runs")
    parser.add_argument("--runs", nargs="*", default=[], help="names of runs; all by default")
    parser.add_argument("--write", action="store_true", help="renew the stamps that are proven")
    asked = parser.parse_args()
    commit = clean_commit() if asked.write else ""
    claimed = claims(asked.results, asked.runs)
    if asked.write and any(claim.record["schema"] == 1 for claim in claimed):
        raise SystemExit("there are results of schema 1, which hold no proofs: migrate them first")
    with Checkouts() as old:
        machine = prove(claimed, old)
    for claim in claimed if asked.write else ():
        if claim.status == "proven":
            renew(claim, commit, machine)
    print(table(claimed))
    return int(any(claim.status not in ("fresh", "proven") for claim in claimed))


if __name__ == "__main__":
    raise SystemExit(main())
