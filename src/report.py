"""Render every table and figure again from the results on disk, or promote a sweep.

python src/report.py                          # logs/sweeps/*, results/sweeps/*
python src/report.py promote=adabin_cifar10   # copy a finished sweep into results/ first
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig

from bnnbench import resolvers
from bnnbench.report.promote import promote
from bnnbench.report.render import render
from bnnbench.report.tables import Table

resolvers.register()


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    """Promote what is asked for, then render all sweeps of the logs and of results/."""
    results, sweeps, runs = (
        Path(cfg.paths[key]) for key in ("results_dir", "sweeps_dir", "runs_dir")
    )
    names = cfg.promote if isinstance(cfg.promote, ListConfig) else [cfg.promote]
    for name in filter(None, names):
        copied = promote(name, sweeps, runs, results, cfg.allow_dirty)
        print(f"promoted {name}: {len(copied) - 1} results")
    for manifest in sorted(sweeps.glob("*/sweep.json")):
        render(manifest, [runs], manifest.parent, results / "published")
        print(manifest.parent / "table.md")
    render_results(results)


def render_results(results: Path) -> None:
    """Render every promoted sweep into results/tables and results/figures, with an index."""
    tables: dict[str, Table] = {}
    for manifest in sorted((results / "sweeps").glob("*.json")):
        name, out = manifest.stem, results / "tables"
        figure = results / "figures" / f"{name}.png"
        folders = [results / "runs"]
        tables[name] = render(
            manifest, folders, out, results / "published", stem=name, figure=figure
        )
        print(out / f"{name}.md")
    if tables:
        lines = (f"- [{table.title}]({name}.md)\n" for name, table in tables.items())
        (results / "tables" / "index.md").write_text("".join(["# Tables\n\n", *lines]))


if __name__ == "__main__":
    main()
