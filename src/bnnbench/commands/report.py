"""Render every table and figure again from the results on disk, or promote a sweep.

bnnbench report                          # logs/sweeps/*, results/sweeps/*
bnnbench report promote=adabin_cifar10   # copy a finished sweep into results/ first
bnnbench report 'figures=[curves,layers]' # with pictures of latent weights
bnnbench report promote=<sweep> as=digits_three title='Three methods on digits'
bnnbench report figure=scores table=adabin_cifar10_full format=pdf  # one figure, for a paper
bnnbench report scores                    # methods x six tracks, of the largest scale that there is
bnnbench report scores scale=demo
bnnbench report wandb=my-team/bnnbench table=<sweep> # a W&B Report of a sweep of the logs
bnnbench report sweep=<sweep>            # what of it is done, running or missing, and its table
bnnbench report site=true                # write results and docs as pages, to build/site, instead

Where results/bench holds what `bnnbench bench` measured, tables show times, and two tables and a
figure are drawn of it: efficiency.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import hydra
from omegaconf import DictConfig, ListConfig

from bnnbench import resolvers
from bnnbench.checks.errors import full_error, is_told, message
from bnnbench.commands.help import of_report
from bnnbench.paths import conf_dir
from bnnbench.report.asked import EFFICIENCY, Places, check_formats, draw_asked
from bnnbench.report.efficiency import Bench, bench_of, tables
from bnnbench.report.markup import markdown
from bnnbench.report.overall_page import NAME, Where, committed, nothing, page
from bnnbench.report.pareto import pareto
from bnnbench.report.promote import continued, promote
from bnnbench.report.reading import all_results, read_json
from bnnbench.report.render import check_figures, render, write_table
from bnnbench.report.robustness import write
from bnnbench.report.rows import Result
from bnnbench.report.spent import spent
from bnnbench.report.tables import Table
from bnnbench.site.build import build, check_packages
from bnnbench.sweep.cli import short_errors
from bnnbench.sweep.collected import standing

resolvers.register()
_KEYS = {"table": "sweep", "scale": "of_scale"}


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="report")
def main(cfg: DictConfig) -> None:
    """Promote what is asked for, then render all sweeps of the logs and of results/, or the site.

    A sweep that cannot be rendered is named and costs the exit code, not the others.
    """
    results, sweeps, runs = (
        Path(cfg.paths[key]) for key in ("results_dir", "sweeps_dir", "runs_dir")
    )
    failed: list[Path] = []
    try:
        check_scores(cfg)
        check_promoted(cfg)
        check_drawn(cfg)
        if cfg.figure is not None:
            places = Places(results, sweeps, runs)
            for file in draw_asked(as_list(cfg.figure), cfg.sweep, as_list(cfg.format), places):
                print(file)
        if cfg.wandb is not None:
            from bnnbench.sweep.wandb_upload import make_reports  # with torch

            make_reports(cfg.sweep, sweeps, runs, results, cfg.wandb)
        if cfg.scores:
            make_scores(results, sweeps, runs, cfg.of_scale, as_list(cfg.format))
        if cfg.figure is not None or cfg.wandb is not None or cfg.scores:
            return
        if cfg.sweep is not None and cfg.promote is None and not cfg.site:
            return collect_sweep(cfg.sweep, Places(results, sweeps, runs), cfg.figures)
        if cfg.site:
            check_packages()
        promote_all(cfg, sweeps, runs, results)
        if cfg.site:
            return build_site(Path(cfg.paths.root_dir), results, sweeps, runs)
        manifests = sorted(sweeps.glob("*/sweep.json"))
        how = {"names": cfg.figures, "bench": bench_of(results), "beside": manifests, "read": {}}
        for manifest in manifests:
            where = [runs], manifest.parent, results / "published"
            if rendered(failed, manifest, *where, **how):
                print(manifest.parent / "table.md")
        again(sweeps.parent, failed)
        render_results(results, failed, cfg.figures)
    except Exception as error:
        if full_error() or not is_told(error):
            raise
        raise SystemExit(f"error: {message(error)}") from None
    if failed:
        raise SystemExit(f"error: not rendered: {', '.join(map(str, failed))}")


def collect_sweep(name: str, places: Places, figures: Sequence[str] | None) -> None:
    """Say where a sweep of the logs stands, and render what there is of its table.

    Raises ValueError, listing those there are, for a name that no sweep of the logs has.
    """
    manifest, (runs,) = places.manifest_of(name)
    if manifest.name != "sweep.json":
        raise ValueError(f"sweep={name} is committed, and whole: its table is {name}.md")
    print("\n".join(standing(read_json(manifest), runs)))
    published, bench = places.results / "published", bench_of(places.results)
    table = render(manifest, [runs], manifest.parent, published, names=figures, bench=bench)
    print(f"\n{table.markdown()}\n{manifest.parent / 'table.md'}")


def as_list(value: str | Sequence[str]) -> list[str]:
    """What may be one word or a list of them, as a list."""
    return [value] if isinstance(value, str) else list(value)


def check_scores(cfg: DictConfig) -> None:
    """Refuse what is typed beside `scores` and has no meaning there, or only there."""
    if cfg.of_scale is not None and not cfg.scores:
        raise ValueError(f"scale={cfg.of_scale}: of scores alone: report scores scale=...")
    typed = {"table": cfg.sweep, "figure": cfg.figure, "wandb": cfg.wandb, "promote": cfg.promote}
    if cfg.scores and (beside := [key for key, value in typed.items() if value is not None]):
        raise ValueError(f"scores: of all tables at once: leave {'=, '.join(beside)}= out")


def check_promoted(cfg: DictConfig) -> None:
    """Refuse what is typed beside `promote=` and would leave nothing promoted."""
    typed = {"figure": cfg.figure, "wandb": cfg.wandb, "table": cfg.sweep}
    if cfg.promote is not None and (
        beside := [key for key, value in typed.items() if value is not None]
    ):
        raise ValueError(f"promote={cfg.promote}: alone: leave {'=, '.join(beside)}= out")


def check_drawn(cfg: DictConfig) -> None:
    """Refuse figures that there are not, and formats of none. Raises ValueError."""
    check_figures(as_list(cfg.figures or []))
    alone = cfg.figure is not None or cfg.scores
    if as_list(cfg.format) != ["png"] and not alone:
        raise ValueError(
            f"format={cfg.format}: of one figure, or of scores: add figure=<name> table=<sweep>"
        )


def make_scores(
    results: Path, sweeps: Path, runs: Path, scale: str | None, formats: Sequence[str]
) -> None:
    """Write the overall scores of the logs, and those of what is committed.

    Raises ValueError where neither has results of any track, and for an unknown format.
    """
    check_formats(formats)
    folder = f"{sweeps}/{NAME}_{{}}"
    manifests = sorted(sweeps.glob("*/sweep.json"))
    tested = sorted((sweeps.parent / "robustness").glob("*.json"))
    own = Where(manifests, runs, f"{folder}/table", f"{folder}/scores", tested)
    bench = bench_of(results)
    pages = [page(place, bench, scale, formats) for place in (own, committed(results))]
    if not any(pages):
        raise nothing(scale)
    for stem, _ in filter(None, pages):
        print(stem.with_name(f"{stem.name}.md"))


def build_site(root: Path, results: Path, sweeps: Path, runs: Path) -> None:
    """Write the site; what could not be shown is named and costs the exit code, not the rest."""
    out = root / "build" / "site"
    problems = build(root, results, sweeps, runs, out)
    for line in problems:
        print(f"not shown: {line}", file=sys.stderr)
    print(out / "index.html")
    if problems:
        raise SystemExit(f"error: {len(problems)} not shown, named above and on problems.html")


def promote_all(cfg: DictConfig, sweeps: Path, runs: Path, results: Path) -> None:
    """Promote the sweeps that `promote=` names."""
    named = cfg.promote if isinstance(cfg.promote, ListConfig) else [cfg.promote]
    names = list(filter(None, named))
    stored_as = None if cfg["as"] is None else str(cfg["as"])
    if len(names) != 1 and (stored_as or cfg.title or cfg.not_run):
        raise ValueError("as=, title= and not_run= are of one sweep: promote=<sweep> as=<name>")
    for name in names:
        allowed = cfg.allow_dirty, cfg.allow_partial
        copied = promote(name, sweeps, runs, results, *allowed, stored_as, cfg.title, cfg.not_run)
        results_of = sum(path.parent == results / "runs" for path in copied)
        print(f"promoted {name}{f' as {stored_as}' if stored_as else ''}: {results_of} results")
        for line in continued(copied):
            print(f"  {line}")


def render_results(results: Path, failed: list[Path], names: Sequence[str] | None) -> None:
    """Render every promoted sweep into results/tables and results/figures, with an index."""
    folder, index, bench = results / "tables", [], bench_of(results)
    manifests = sorted((results / "sweeps").glob("*.json"))
    how = {"formats": ("png",), "names": names, "bench": bench, "beside": manifests, "read": {}}
    for manifest in manifests:
        name = manifest.stem
        where = [results / "runs"], folder, results / "published", name, results / "figures" / name
        if table := rendered(failed, manifest, *where, **how):
            index.append(_listed(table, name))
            print(folder / f"{name}.md")
    if scored := page(committed(results), bench, None, ("png",)):
        index.append(_listed(scored[1], scored[0].name))
        print(folder / f"{scored[0].name}.md")
    index += [_listed(table, f"../robustness/{name}") for name, table in again(results, failed)]
    runs = all_results(results / "runs")
    if bench is not None:
        index += [_listed(table, name) for name, table in render_bench(results, bench, runs)]
    if index:
        took = spent(runs)
        head = f"# Tables\n\n{took}\n\n" if took else "# Tables\n\n"
        (folder / "index.md").write_text("".join([head, *index]), encoding="utf-8")


def _listed(table: Table, name: str) -> str:
    title = markdown(table.title).replace("[", r"\[").replace("]", r"\]")
    return f"- [{title}]({quote(name)}.md)\n"


def again(folder: Path, failed: list[Path]) -> list[tuple[str, Table]]:
    """The tables of robustness files, written beside them with their heat maps, by name."""
    made = []
    for file in sorted((folder / "robustness").glob("*.json")):
        try:
            made.append((file.stem, write(file, file.parent, file.parent)))
            print(file.with_suffix(".md"))
        except ValueError as error:
            print(f"not rendered: {error}", file=sys.stderr)
            failed.append(file)
    return made


def render_bench(results: Path, bench: Bench, runs: Sequence[Result]) -> list[tuple[str, Table]]:
    """Write the tables of a bench file, and accuracy against time and size of all runs."""
    made = tables(bench.speeds, bench.name)
    for name, table in made:
        write_table(results / "tables" / name, table)
        print(results / "tables" / f"{name}.md")
    pareto(runs, bench, results / "figures" / EFFICIENCY)
    return made


def rendered(failed: list[Path], manifest: Path, *where, **how) -> Table | None:
    """The rendered table; where that fails, None, a line on stderr and an entry in failed."""
    try:
        return render(manifest, *where, **how)
    except Exception as error:  # whatever is wrong with one sweep, the others have their tables
        print(f"not rendered: {manifest}: {type(error).__name__}: {error}", file=sys.stderr)
        failed.append(manifest)
        return None


def with_table(argv: Sequence[str]) -> list[str]:
    """`argv` with the keys that `table=`, `scale=` and the word `scores` stand for.

    To Hydra the first two are groups of train.py. Names are quoted: they may be of any letters.
    """

    def quoted(word: str) -> str:
        key, _, name = word.partition("=")
        name = name.strip("'\"").replace("'", r"\'")
        return f"{_KEYS[key]}='{name}'"

    for before, word in pairwise(argv):  # what follows a flag is its value: --cfg job
        known = "=" in word or word == "scores" or word.startswith(("-", "~"))
        if not known and not before.startswith("-"):
            raise SystemExit(f"error: {word}: no word of report; type scores, or <key>=<value>")
    plain = ["scores=true" if word == "scores" else word for word in argv]
    return [quoted(word) if word.partition("=")[0] in _KEYS else word for word in plain]


def run() -> None:
    """The command with the arguments of ``sys.argv``."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(of_report())
        return
    sys.argv = with_table(sys.argv)
    with short_errors():
        main()
