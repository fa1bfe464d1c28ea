"""The tables of conf/table: they compose at every scale, and compare like with like."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from bnnbench.records.checkpoints import check_start
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.report.matching import with_published
from bnnbench.report.published import load_published
from bnnbench.report.rows import Row
from bnnbench.runs.build import build_task
from bnnbench.runs.twin import twin_of
from bnnbench.sweep.expand import expand_table, scale_notes
from hydra_plugins.bnnbench_sweeper._plan import splitter

CONF = Path(__file__).parents[2] / "conf"
TABLES = sorted(file.stem for file in (CONF / "table").glob("*.yaml") if file.stem != "none")
STUDIES = ["bonn_figures", "kernel_loss_cifar10", "kernel_search", "recipe_search"]  # of one method
AUTHORS = "adabin_native_cifar10"  # one method by its authors' recipe
STUDIES += ["fast_search", AUTHORS]  # of one recipe
TUNED = "tuned_cifar10"
SENSITIVITY, TASKS = "sensitivity_cifar10", "tasks"  # of optimisers, and of several data sets
OTHERS = (*STUDIES, TUNED, SENSITIVITY, TASKS)
COMPARISONS = [table for table in TABLES if table not in OTHERS]
BONN = [table for table in COMPARISONS if table.startswith("bonn_")]  # rows as the paper has them
IMAGENET = "adabin_imagenet"  # likewise
VOC = "adabin_voc"  # likewise, of detectors
TAUGHT = "two_step_cifar10"  # by a network of another table
COMPARISONS = [table for table in COMPARISONS if table not in (*BONN, IMAGENET, VOC, TAUGHT)]
COUNTED = "bonn_efficiency"  # trains nothing
SCALES = ["demo", "quick", "full"]
STRUCTURE = ("shortcut", "downsample", "nonlinearity", "head_norm")
Expand = Callable[[str, str], list[dict[str, str]]]
Composed = Callable[[tuple[str, ...]], DictConfig]


def load(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / group / f"{name}.yaml").read_text())


@pytest.fixture(scope="module")
def expand() -> Iterator[Expand]:
    """Cells of a table at a scale."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        split = splitter(GlobalHydra.instance().config_loader())
        yield lambda table, scale: expand_table(
            load("table", table), load("scale", scale), [], split
        )


@pytest.fixture(scope="module")
def composed(expand: Expand) -> Composed:
    """The config of some overrides; many cells share one network."""
    return cache(lambda overrides: compose("train", overrides=list(overrides)))


def network(cell: dict[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{k}={v}" for k, v in cell.items() if k.split(".")[0] in ("quantizer", "backbone")
    )


def structure(cfg: DictConfig) -> tuple[Any, ...]:
    """What a method and its full-precision twin share; a ReLU stands for no nonlinearity."""
    values = [cfg.backbone.get(key) for key in STRUCTURE]
    return cfg.backbone.name, *("relu" if value == "identity" else value for value in values)


@pytest.mark.parametrize("table", [*COMPARISONS, SENSITIVITY, TASKS])
@pytest.mark.parametrize("scale", SCALES)
def test_every_method_has_its_twin(
    expand: Expand, composed: Composed, table: str, scale: str
) -> None:
    cells = expand(table, scale)
    cfgs = [composed(network(cell)) for cell in cells]
    twins = {structure(cfg) for cfg in cfgs if cfg.quantizer.name == "fp32"}
    methods = [cfg for cfg in cfgs if cfg.quantizer.name != "fp32"]
    assert methods
    lonely = [
        (cfg.quantizer.name, structure(cfg)) for cfg in methods if structure(cfg) not in twins
    ]
    assert lonely == []
    assert all(
        cfg.backbone.nonlinearity != "identity" for cfg in cfgs if cfg.quantizer.name == "fp32"
    )


@pytest.mark.parametrize("table", [*COMPARISONS, IMAGENET, *(t for t in BONN if t != COUNTED)])
def test_scales_set_data_length_and_seeds(expand: Expand, table: str) -> None:
    demo, quick, full = (expand(table, scale) for scale in SCALES)
    assert {c["dataset"] for c in demo} == {"digits"}
    assert "digits" not in {c["dataset"] for c in [*quick, *full]}
    assert {c["seed"] for c in [*demo, *quick]} == {"0"}
    long = {c["dataset"] for c in full} == {"imagenet"} or table == "bonn_lambda_theta"
    seeds = ["0"] if long else ["0", "1", "2"]
    assert {c["seed"] for c in full} == set(seeds)
    assert all("trainer.max_epochs" not in c for c in full)
    shown = [network(c) for c in full]
    assert {network(c) for c in quick} == set(shown)
    assert {network(c) for c in demo} <= set(shown)
    assert len(full) == len(seeds) * len(quick)


def test_scales_of_the_detection_table(expand: Expand, composed: Composed) -> None:
    """Generated images and a small network, a short run on VOC, and the authors' iterations."""
    cells = {scale: expand(VOC, scale) for scale in SCALES}
    cfgs = {
        s: [composed(tuple(f"{k}={v}" for k, v in c.items())) for c in cells[s]] for s in SCALES
    }
    assert {cfg.dataset.name for cfg in cfgs["demo"]} == {"shapes"}
    assert {cfg.backbone.name for cfg in cfgs["demo"]} == {"ssd300_resnet18"}
    for scale in ("quick", "full"):
        names = {(cfg.dataset.name, cfg.backbone.name) for cfg in cfgs[scale]}
        assert names == {("voc0712", "ssd300_vgg16")}
    assert {cfg.trainer.max_epochs for cfg in cfgs["quick"]} == {16}
    steps = {cfg.quantizer.name: cfg.recipe.steps for cfg in cfgs["full"]}
    assert steps.pop("fp32") == 120000
    assert set(steps.values()) == {300000}
    assert len(cells["full"]) == 3 * len(cells["quick"]) == 3 * 10


def test_the_sweep_over_lambda_and_theta_has_28_runs(expand: Expand) -> None:
    cells = expand("bonn_lambda_theta", "full")
    keys = ("backbone", "dataset", "loss.lambda", "loss.theta")
    assert len(cells) == len({tuple(cell[key] for key in keys) for cell in cells}) == 28


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_a_table_notes_no_epochs_and_no_seeds(table: str, scale: str) -> None:
    # Both may be typed beside a table's name, which a note does not hear; both are columns.
    told = scale_notes(load("table", table), load("scale", scale)) or ""
    assert not re.findall(r"(?i)\b(?:\d+|one|two|three|an?) (?:epochs?|seeds?)\b", told), told


@pytest.mark.parametrize("table", STUDIES)
def test_studies_compose_at_every_scale(expand: Expand, composed: Composed, table: str) -> None:
    for scale in SCALES:
        for cell in expand(table, scale):
            fingerprint(composed(tuple(f"{k}={v}" for k, v in cell.items())))


@pytest.mark.parametrize(("scale", "epochs"), [("demo", 6), ("quick", 60), ("full", 400)])
def test_the_twin_is_trained_by_the_authors_recipe_too(
    expand: Expand, composed: Composed, scale: str, epochs: int
) -> None:
    cells = [tuple(f"{k}={v}" for k, v in cell.items()) for cell in expand(AUTHORS, scale)]
    told = []
    for cfg in map(composed, cells):
        recipe = OmegaConf.to_container(cfg.recipe, resolve=True)
        batch = recipe.pop("batch_size")[cfg.dataset.name]
        apart = {key: recipe.pop(key) for key in ("name", "epochs")}
        assert apart["name"] == "native" or cfg.quantizer.name == "fp32" or scale == "demo"
        told.append([cfg.trainer.max_epochs, batch, recipe])
    assert all(each == told[0] for each in told)
    assert {cfg.quantizer.name for cfg in map(composed, cells)} == {"adabin", "fp32"}
    assert len({structure(composed(cell)) for cell in cells}) == 1
    length, batch, recipe = told[0]
    assert (length, recipe["optimizer"], recipe["schedule"]) == (epochs, "sgd", "cosine")
    rates = recipe["lr"], recipe["momentum"], recipe["weight_decay"], recipe["warmup"]
    assert rates == (0.1, 0.9, 1e-4, 0.0)
    assert batch == (64 if scale == "demo" else 128)


@pytest.mark.parametrize(("scale", "methods"), [("demo", 3), ("quick", 5), ("full", 10)])
def test_sensitivity_is_eight_settings_of_each_method_in_one_structure(
    expand: Expand, composed: Composed, scale: str, methods: int
) -> None:
    cells = expand(SENSITIVITY, scale)
    keys = ("quantizer", "recipe.optimizer", "recipe.lr", "recipe.schedule")
    told = [tuple(cell[key] for key in keys) for cell in cells]
    assert len(told) == len(set(told)) == 8 * methods
    rates = {("adam", 1e-3), ("adam", 1e-4), ("sgd", 1e-1), ("sgd", 1e-2)}
    assert {(optimizer, float(lr)) for _, optimizer, lr, _ in told} == rates
    assert {structure(composed(network(cell))) for cell in cells} == {
        ("resnet20", "conv", "pad", "hardtanh", False)
    }
    for cell in cells[::methods]:  # of one method
        fingerprint(composed(tuple(f"{k}={v}" for k, v in cell.items())))


@pytest.mark.parametrize("table", ["unified_cifar10", "native_structure_cifar10"])
def test_rows_that_start_from_their_twin_have_one_that_fits(
    expand: Expand, composed: Composed, tmp_path: Path, table: str
) -> None:
    started = 0
    for cell in expand(table, "quick"):
        folders = (f"paths.runs_dir={tmp_path}", f"paths.output_dir={tmp_path}")
        cfg = composed((*(f"{k}={v}" for k, v in cell.items()), *folders))
        if cfg.recipe.get("start"):
            started += 1
            check_start(build_task(cfg).net, build_task(twin_of(cfg).cfg).net.state_dict(), "it is")
    assert started > 20


@pytest.mark.parametrize("scale", SCALES)
def test_tuning_is_four_trials_of_each_of_six_methods_without_test_data(
    expand: Expand, composed: Composed, scale: str
) -> None:
    cells = expand(TUNED, scale)
    seeds = len({cell["seed"] for cell in cells})
    trials = {
        (c["quantizer"], float(c["recipe.lr"]), float(c["recipe.weight_decay"])) for c in cells
    }
    assert len(trials) == 6 * 4
    assert len(cells) == 6 * 4 * seeds
    default = composed(("recipe=unified", "dataset=cifar10")).recipe
    assert all((cell["quantizer"], default.lr, default.weight_decay) in trials for cell in cells)
    for cell in cells[:4]:
        cfg = composed(tuple(f"{k}={v}" for k, v in cell.items()))
        assert cfg.dataset.val_fraction == 0.2
        fingerprint(cfg)


def test_tasks_are_several_kinds_of_data_and_share_runs_with_other_tables(
    expand: Expand, composed: Composed
) -> None:
    """The demo trains two cells of its own; quick has CIFAR-10's from the table of structures."""
    kinds = {"cifar10", "cifar100", "fashion_mnist", "image_folder", "voc_folder"}
    for scale in ("quick", "full"):
        assert {cell["dataset"] for cell in expand(TASKS, scale)} == kinds
    demo = expand(TASKS, "demo")
    assert {cell["dataset"] for cell in demo} == {"digits", "shapes"}

    def runs(cells: list[dict[str, str]]) -> set[str]:
        return {fingerprint(composed(tuple(f"{k}={v}" for k, v in cell.items()))) for cell in cells}

    shared = runs(expand("native_structure_cifar10", "demo")) | runs(expand(VOC, "demo"))
    assert len(demo) == len(runs(demo)) == 8
    assert len(runs(demo) - shared) == 2
    quick = [cell for cell in expand(TASKS, "quick") if cell["dataset"] == "cifar10"]
    assert len(quick) == 6
    assert runs(quick) <= runs(expand("native_structure_cifar10", "quick"))


@pytest.mark.parametrize("scale", ["quick", "full"])
def test_calibration_trains_nothing_that_unified_has_not(
    expand: Expand, composed: Composed, scale: str
) -> None:
    def runs(table: str) -> set[str]:
        cells = [tuple(f"{k}={v}" for k, v in c.items()) for c in expand(table, scale)]
        return {fingerprint(composed(cell)) for cell in cells}

    assert runs("calibration_cifar10") <= runs("unified_cifar10")


def test_unified_is_one_structure(expand: Expand, composed: Composed) -> None:
    cfgs = [composed(network(cell)) for cell in expand("unified_cifar10", "full")]
    assert {structure(cfg) for cfg in cfgs} == {("resnet20", "conv", "pad", "relu", False)}
    binary = {cfg.backbone.nonlinearity for cfg in cfgs if cfg.quantizer.name != "fp32"}
    assert binary == {"identity"}


@pytest.mark.parametrize(("scale", "recipe"), [("quick", "fast"), ("full", "unified")])
def test_two_steps_stand_beside_the_unified_tables_one_step_and_learn_from_its_twin(
    expand: Expand, composed: Composed, scale: str, recipe: str
) -> None:
    fast = ("trainer.precision=bf16-mixed", "compile=true")
    unified = [
        composed(tuple(f"{k}={v}" for k, v in cell.items()) + fast)
        for cell in expand("unified_cifar10", scale)
        if cell["quantizer"] in ("adabin", "reactnet")
    ]
    cells = expand(TAUGHT, scale)
    plain = [cell for cell in cells if "teacher" not in cell]
    taught = [cell for cell in cells if "teacher" in cell]
    assert len(plain) == len(taught) == 2 * len(unified)
    steps = [composed(tuple(f"{k}={v}" for k, v in cell.items())) for cell in plain]
    one_step = {fingerprint(cfg) for cfg in steps if cfg.recipe.name == recipe}
    assert one_step == {fingerprint(cfg) for cfg in unified}
    relu = expand("unified_cifar10", scale)[0] | {"recipe": "unified", "seed": "0"}
    assert relu["quantizer"] == "fp32"
    twin = composed(tuple(f"{k}={v}" for k, v in relu.items()) + fast)
    folders = {cell["teacher.folder"].replace("\\", "") for cell in taught}  # Hydra escapes braces
    assert folders == {"${paths.runs_dir}/" + run_name(twin)}


def test_native_overrides_no_structure_of_a_method(expand: Expand) -> None:
    for cell in expand("native_structure_cifar10", "full"):
        overridden = any(key.startswith("backbone.") for key in cell)
        assert overridden == (cell["quantizer"] == "fp32")


def test_a_method_of_the_paper_has_a_row_where_it_was_published(expand: Expand) -> None:
    file = CONF.parent / "results" / "published" / "adabin_cifar10.yaml"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    options = {option.stem for option in (CONF / "quantizer").glob("*.yaml")}
    rows = {(row["method"], row["backbone"]) for row in yaml.safe_load(file.read_text())["rows"]}
    cells = expand("adabin_cifar10", "full")
    measured = {(cell["quantizer"], cell["backbone"]) for cell in cells}
    assert measured == {(method, net) for method, net in rows if method in options}


@pytest.mark.parametrize("table", [*BONN, IMAGENET, VOC])
def test_every_setting_of_the_paper_that_can_be_run_has_its_row(
    expand: Expand, composed: Composed, table: str
) -> None:
    """All published rows of the methods that exist here, and no number stands beside two cells."""
    published = load_published(CONF.parent / "results" / "published" / f"{table}.yaml")
    options = {option.stem for option in (CONF / "quantizer").glob("*.yaml")}
    cells = [{k: v for k, v in cell.items() if k != "seed"} for cell in expand(table, "quick")]
    swept = {key for cell in cells for key in cell if key != "backbone.downsample"}
    manifest = {"swept": swept, "scale": "quick", "table": load("table", table)}
    groups = ("quantizer", "backbone", "dataset", "loss", "recipe")
    rows = []
    for cell in cells:
        cfg = composed(tuple(f"{k}={v}" for k, v in cell.items()))
        values = {g: OmegaConf.to_container(cfg[g], resolve=True) for g in groups}
        settings = {f"{g}.{k}": v for g in groups for k, v in values[g].items()}
        rows.append(Row(cell, settings, cells=1))
    rows = with_published(rows, published, manifest)
    claimed = [id(row.published) for row in rows if row.cells and row.published]
    assert len(claimed) == len(set(claimed)) > 0
    networks = {option.stem for option in (CONF / "backbone").glob("*.yaml")}
    left = [row.published for row in rows if row.published and not row.cells]
    assert not {entry["method"] for entry in left if entry["backbone"] in networks} & options


def test_tables_of_the_bonn_paper_share_their_demo_cells(
    expand: Expand, composed: Composed
) -> None:
    """Nothing is trained twice, and all of them together stay a few minutes' work."""
    cells = [cell for table in BONN if table != COUNTED for cell in expand(table, "demo")]
    runs = {fingerprint(composed(tuple(f"{k}={v}" for k, v in cell.items()))) for cell in cells}
    assert (len(cells), len(runs)) == (9, 6)


@pytest.mark.parametrize("scale", SCALES)
def test_the_memory_table_counts_the_real_network_and_trains_nothing(
    expand: Expand, composed: Composed, scale: str
) -> None:
    cells = expand(COUNTED, scale)
    assert [cell["quantizer"] for cell in cells] == ["fp32", "xnor", "bonn"]
    for cell in cells:
        cfg = composed(tuple(f"{k}={v}" for k, v in cell.items()))
        assert (cfg.dataset.image_size, cfg.dataset.num_classes) == (224, 1000)
        assert (cfg.trainer.max_epochs, cfg.backbone.downsample) == (0, "conv")
