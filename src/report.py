"""Render every table and figure again from the results on disk, or promote a sweep.

python src/report.py                          # logs/sweeps/*, results/sweeps/*
python src/report.py promote=adabin_cifar10   # copy a finished sweep into results/ first
python src/report.py docs=true                # docs/methods.md and its plots as well
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, ListConfig

from bnnbench import resolvers
from bnnbench.report.promote import promote
from bnnbench.report.render import render

resolvers.register()


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    """Promote what is asked for, then render all sweeps of the logs and of results/."""
    names = cfg.promote if isinstance(cfg.promote, ListConfig) else [cfg.promote]
    results, sweeps, runs = (
        Path(cfg.paths[key]) for key in ("results_dir", "sweeps_dir", "runs_dir")
    )
    try:
        for name in filter(None, names):
            copied = promote(name, sweeps, runs, results, cfg.allow_dirty)
            results_of = sum(path.suffix == ".json" for path in copied) - 1  # without the manifest
            print(f"promoted {name}: {results_of} results")
        for manifest in sorted(sweeps.glob("*/sweep.json")):
            render(manifest, [runs], manifest.parent, results / "published")
            print(manifest.parent / "table.md")
        render_results(results)
        if cfg.docs:
            from bnnbench.report.methods import write_page  # with torch

            print(write_page(Path(cfg.paths.root_dir) / "docs", results / "published"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def render_results(results: Path) -> None:
    """Render every promoted sweep into results/tables and results/figures, with an index."""
    tables, index = results / "tables", []
    for manifest in sorted((results / "sweeps").glob("*.json")):
        name = manifest.stem
        figures = results / "figures" / name
        published, runs = results / "published", [results / "runs"]
        table = render(manifest, runs, tables, published, name, figures, formats=("png",))
        index.append(f"- [{table.title}]({name}.md)\n")
        print(tables / f"{name}.md")
    if index:
        (tables / "index.md").write_text("".join(["# Tables\n\n", *index]), encoding="utf-8")


if __name__ == "__main__":
    main()
