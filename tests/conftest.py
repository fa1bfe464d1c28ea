"""Fixtures of all tests, and which of them `make test` leaves to `make test-all`."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[1]

# Three methods that differ: of the first papers, with learned centres, and with a loss of its own.
METHODS = ("xnor", "adabin", "bonn")
SMALL = ("resnet18", "resnet20", "vgg_small", "wrn22")
# Slow tests, below tests/: a function or a whole file, and patterns of the parameters that stay
# quick. What is here costs seconds a case and says of many what a quick one says of a few.
SLOW: dict[str, tuple[str, ...]] = {
    "backbones/test_all_backbones.py::test_every_pair_runs_and_gives_every_parameter_a_gradient": (
        "resnet20-*-8",
        *(f"{backbone}-{method}-8" for backbone in ("wrn22", "vgg_small") for method in METHODS),
        "vgg7-adabin-8",
    ),
    "backbones/test_all_backbones.py::test_grey_odd_sized_images_and_other_class_counts": SMALL,
    "backbones/test_all_backbones.py::test_features_and_head_are_timms": SMALL,
    "backbones/test_all_backbones.py::test_head_norm_and_binary_ends": SMALL,
    "backbones/test_ssd.py::test_binary_layers_see_both_values": ("ssd300_resnet18-*",),
    "backbones/test_ssd.py::test_binary_vgg16_with_shortcuts_counts_as_bidets_code": (),
    "backbones/test_ssd.py::test_each_float_layer_can_be_binary": ("switch2-*",),
    "backbones/test_ssd.py::test_plain_vgg16_is_torchvisions_body": (),
    "backbones/test_ssd.py::test_the_maps_are_as_wide_as_the_default_boxes_say": (
        "ssd300_resnet18-*",
    ),
    "backbones/test_ssd.py::test_every_quantizer_gives_every_parameter_a_finite_gradient": METHODS,
    "callbacks/test_diagnostics.py::test_a_run_with_it_is_bit_for_bit_the_run_without": (
        "adabin",
        "watched",
    ),
    "bench/test_subjects.py::test_equal_work_has_one_name_and_other_work_another": (),
    "bench/test_subjects.py::test_the_compiled_way_computes_the_same": (),
    "data/test_check.py::test_the_door": (),
    "docs/test_lightning.py::test_the_command_of_the_page_ends_in_its_table": (),
    "docs/test_lightning.py::test_python_of_the_page_runs": (),
    "data/test_resizing.py::test_a_cut_run_goes_on_with_its_sizes": (),
    "losses/test_class_weights.py::test_a_run_trains_with_them_and_goes_on": ("balanced",),
    "commands/test_export.py::test_a_classifier_is_taken_as_its_checkpoint": (),
    "commands/test_export.py::test_a_damaged_packed_file_is_one_line": ("cut",),
    "commands/test_export.py::test_a_detector_is_taken_as_its_checkpoint": (),
    "commands/test_export.py::test_a_method_that_cannot_be_packed_names_the_layer": ("*twn*",),
    "packing/test_export.py::test_a_network_that_was_binarized": ("adabin",),
    "packing/test_export.py::test_bits_and_bases_by_option": ("dorefa-options0-*",),
    "packing/test_export.py::test_every_backbone_is_as_small_as_counted": ("wrn22", "vgg_small"),
    "packing/test_export.py::test_every_one_bit_method": METHODS,
    "packing/test_onnx.py::test_logits_are_the_networks": (),
    "packing/test_export.py::test_structures": ("xnor-structure1", "xnor-structure7"),
    "packing/test_export.py::test_detectors": (),
    "packing/test_fused.py::test_every_path_gives_the_bits_of_the_float_path": ("adabin",),
    "packing/test_fused.py::test_every_step_is_its_operations": ("reactnet", "adabin", "block*"),
    "packing/test_fused.py::test_layers_are_in_the_kernel_and_fed_by_the_step_before": (
        "birealnet",
    ),
    "packing/test_fused.py::test_one_image_is_what_it_is_among_others": ("xnor",),
    "quantizers/test_learning.py::test_fits_digits": ("xnor", "bonn"),
    "quantizers/test_siman.py::test_percentiles_are_numpys_beyond_the_size_that_torchs_take": (),
    "quantizers/test_surrogate.py::test_signs_compile_into_one_graph": ("False",),
    "quantizers/test_wage.py::test_updates_are_whole_steps_with_the_gradient_as_their_mean": (),
    "records/test_checkpoints.py::test_full_precision_weights_start_every_method": ("resnet20",),
    "records/test_fingerprint.py::test_the_command_of_a_committed_result_is_still_that_run": (
        "digits_*",
    ),
    "runtime/test_build.py::test_a_broken_compiler": ("exit 1-*",),
    "runtime/test_build.py::test_a_cache_that_cannot_be_used": ("of others",),
    "runtime/test_build.py::test_a_compiler_that_fails_leaves_its_work_to_the_next": (),
    "runtime/test_build.py::test_a_kernel_that_computes_wrongly_is_not_used": ("half*",),
    "runtime/test_build.py::test_a_library_that_is_not_whole_is_made_again": ("1000",),
    "runtime/test_build.py::test_each_path_can_be_forced": (),
    "runtime/test_build.py::test_processes_that_start_together": (),
    "runtime/test_build.py::test_without_openmp_it_is_compiled_for_one_thread": (),
    "site/test_browser.py::test_addresses_typed_wrong_are_survived": (),
    "site/test_browser.py::test_all_data_sets_survive_a_reload": (),
    "site/test_browser.py::test_columns_are_hidden_and_shown": (),
    "site/test_browser.py::test_light_and_dark": (),
    "site/test_browser.py::test_no_page_is_wider_than_its_screen": ("390-index.html",),
    "site/test_build.py::test_the_command": (),
    "runtime/test_build.py::test_a_home_that_is_read_only": (),
    "test_wheel.py::test_a_pretrained_network_runs_with_a_compiler_and_without": (),
    "runtime/test_fusion.py::test_every_graph_gives_the_bits_of_its_operations": ("float",),
    "test_wheel.py::test_the_installed_command_trains_in_an_empty_folder": (),
    "runs/test_every_logger.py::test_a_run_and_a_finished_one_reach_it_alike": (
        "wandb",
        "tensorboard",
    ),
    "runs/test_every_logger.py::test_how_a_run_ended_and_that_it_goes_on": ("tensorboard-cut",),
    "runs/test_every_logger.py::test_stages_are_one_run_counted_through": (),
    "runs/test_every_logger.py::test_pictures_of_detectors_reach_it": (),
    "runs/test_every_logger.py::test_an_evaluation_is_a_run_of_its_own": (),
    "runs/test_every_logger.py::test_a_list_of_loggers_and_none": (),
    "runs/test_every_logger.py::test_a_logger_of_somebody_elses": (),
    "runs/test_metrics_file.py::test_six_cuts_leave_the_rows_of_an_uncut_run": (),
    "checks/test_values.py::test_every_value_of_every_option_has_its_type": (
        "recipe=unified",
        "dataset=digits",
        "trainer=default",
        "callbacks=*",
        "logger=*",
    ),
    "runs/test_forced.py::test_a_failed_forced_run_costs_nothing_and_goes_on": (),
    "runs/test_forced.py::test_a_forced_run_of_another_config_takes_no_checkpoint_of_it": (),
    "runs/test_processes.py::test_two_processes_take_one_step_together": (),
    "runs/test_processes.py::test_terms_and_a_bar_end": (),
    "runs/test_processes.py::test_a_process_that_dies_ends_the_run_and_its_reason_stays": (),
    "runs/test_ranks.py": (),
    "runs/test_twin.py::test_a_cut_run_goes_on_and_its_twin_stays": (),
    "runs/test_twin.py::test_two_steps_start_their_first_one": (),
    "runs/test_teacher.py::test_a_frozen_teacher_never_changes": ("kd",),
    "runs/test_continued.py::test_a_schedule_that_knows_no_end_goes_on_bit_for_bit": ("constant",),
    "runs/test_continued.py::test_all_others_go_on_as_in_a_run_of_the_longer_length": ("onecycle",),
    "runs/test_continued.py::test_a_cut_one_goes_on_where_it_was": (),
    "tasks/test_compiled.py::test_a_training_step_is_one_graph": ("*=adabin", "loss=bonn"),
    "tasks/test_devices.py::test_a_step_stays_on_its_device": (
        *(f"*={method}" for method in METHODS),
        "loss=kd",
    ),
    "tasks/test_loading.py::test_a_detector_has_its_classes": (),
    "runs/test_signals.py::test_a_run_is_cut_by_every_signal_and_goes_on": (),
    "runs/test_signals.py::test_a_second_process_of_a_run_waits_and_takes_its_result": (),
    "runs/test_signals.py::test_the_processes_of_a_run_end_with_its_first": (),
    "runs/test_signals.py::test_two_sweeps_at_once_train_each_run_once": (),
    "runs/test_run.py::test_a_cut_run_goes_on_bit_for_bit_with_every_augmentation": (
        "trivialaugment",
    ),
    "runs/test_run.py::test_a_cut_run_with_dropout_and_bayesian_losses_continues_bit_for_bit": (),
    "sweep/test_summary.py::test_other_loggers_have_the_table_and_the_figures": ("tensorboard",),
    "sweep/test_wandb_report.py::test_boxes_of_detectors_have_their_panels": (),
    "sweep/test_compose.py::test_every_cell_of_every_table": ("kernel_search-demo",),
    "sweep/test_compose.py::test_random_lines": (),
    "sweep/test_compose.py::test_whatever_is_typed": ("*two_step*", "*EMAWeightAveraging*"),
    "sweep/test_deaths.py": ("SIGSEGV*",),
    "sweep/test_queue.py::test_a_sweep_is_left_and_collected_later": (),
    "sweep/test_queue.py::test_what_the_cluster_kills_costs_no_other": (),
    "sweep/test_queue.py::test_a_job_that_is_warned_is_queued_again_or_goes_on_later": (),
    "sweep/test_queue.py::test_four_cells_train_as_processes_of_this_machine": (),
    "sweep/test_hours.py::test_a_table_says_what_it_will_take_and_a_pipe_is_not_asked": (),
    "sweep/test_hours.py::test_who_gets_no_estimate": (),
    "sweep/test_hours.py::test_a_table_does_not_depend_on_its_estimate": ("dies*",),
    "sweep/test_hours.py::test_somebody_at_a_terminal_is_asked": ("n*-130-0",),
    "sweep/test_hours.py::test_a_short_table_and_half_a_terminal_are_not_asked": (),
    "sweep/test_hours.py::test_seconds_of_a_real_step": (),
    "sweep/test_terminal.py::test_what_the_environment_asks_for": ("extra3*",),
    "sweep/test_terminal.py::test_jobs_of_the_basic_launcher_print_as_they_like": (),
    "sweep/test_terminal.py::test_a_sweep_without_a_worker_of_its_own_is_painted_too": (),
    "sweep/test_search.py::test_a_cut_search_tries_what_it_would_have": (),
    "sweep/test_search.py::test_what_is_no_search_is_refused_before_a_run": (
        "hparams_search=rate-*",
        "*table=small*",
    ),
    "docs/test_lightning.py::test_a_trusted_class_is_evaluated_on_its_own_data": (),
    "runs/test_unusable.py::test_one_line_says_what_is_wrong_and_what_to_give": (),
    "tasks/test_detection.py::test_a_cut_run_continues_bit_for_bit": (),
    "tasks/test_detection.py::test_a_run_of_steps_ends_with_them_and_is_evaluated": (),
    "test_docs.py::test_the_tutorial_runs": (),
    "test_docs.py::test_a_loss_a_backbone_a_data_set_and_a_table_are_added_as_the_page_says": (),
    "runs/test_stages.py::test_a_killed_run_goes_on_in_its_stage_bit_for_bit": (),
    "runs/test_stages.py::test_force_runs_every_stage_again": (),
    "data/test_images.py::test_a_published_checkpoint_scores_its_published_accuracy": (),
    "runs/test_identity.py::test_what_contradicts_a_checkpoint_is_refused": (),
    "runs/test_identity.py::test_an_evaluation_says_what_it_saw": (),
    "runs/test_continued.py::test_what_cannot_go_on_says_why": (),
    "runs/test_continued.py::test_only_a_finished_run_on_the_same_data_goes_on": (),
    "runs/test_twin.py::test_two_methods_share_one_twin_and_start_from_its_weights": (),
    "losses/test_bayesian_terms.py::test_two_processes_keep_the_same_statistics": (),
    "callbacks/test_diagnostics.py::test_a_cut_run_has_the_values_of_an_uncut_one": (),
    "sweep/test_wandb_report.py::test_the_command": (),
    "runs/test_own_data.py::test_an_evaluation_elsewhere_has_the_normalisation_of_the_training": (),
    "runs/test_teacher.py::test_a_run_in_stages_teaches_with_its_last": (),
    "report/test_figures.py::test_a_large_sweep_makes_a_small_file_the_same_every_time": (),
    "sweep/test_queue.py::test_an_array_of_slurms": (),
    "sweep/test_search.py::test_a_search_ends_in_tables_and_goes_on": (),
    "sweep/test_sweep.py::test_a_table_sweeps_without_m_at_its_scale": (),
    "sweep/test_sweep.py::test_one_worker_logs_as_many_do": (),
    "sweep/test_sweep.py::test_a_reused_result_says_so_and_reaches_a_logger_once": (),
    "sweep/test_sweep.py::test_cells_that_were_told_apart_stay_apart": (),
    "sweep/test_sweep.py::test_other_data_of_the_same_name_are_another_run": (),
    "sweep/test_sweep.py::test_one_sweep_over_two_data_folders_trains_both": (),
    "sweep/test_sweep.py::test_two_command_lines_of_a_table_have_a_table_each": (),
    "sweep/test_sweep.py::test_a_failure_leaves_the_others_alone": ("workers",),
    "sweep/test_sweep.py::test_a_mistake_is_told_before_the_first_job": ("*adabin,xnorr*",),
    "sweep/test_sweep.py::test_a_damaged_result_stops_no_other_cell": (),
    "sweep/test_sweep.py::test_a_bad_number_of_workers_is_told": (),
    "sweep/test_sweep.py::test_a_sweep_killed_halfway_finishes_only_what_is_missing": (),
    "sweep/test_sweep.py::test_a_signal_ends_a_sweep_that_shows_what_there_is_and_resumes": (
        "SIGTERM-workers-group",
    ),
    "sweep/test_sweep.py::test_a_signal_before_and_after_the_runs": ("preflight",),
    "sweep/test_tables.py::test_every_method_has_its_twin": ("demo-unified_cifar10",),
    "sweep/test_tables.py::test_every_setting_of_the_paper_that_can_be_run_has_its_row": (
        "bonn_ablation",
    ),
    "sweep/test_tables.py::test_scales_of_the_detection_table": (),
    "sweep/test_tables.py::test_studies_compose_at_every_scale": ("bonn_figures",),
    "sweep/test_tables.py::test_the_memory_table_counts_the_real_network_and_trains_nothing": (
        "demo",
    ),
    "tasks/test_precision.py::test_a_step_of_bfloat16": (
        *(f"*={method}" for method in METHODS),
        "loss=kd",
    ),
    "tasks/test_synchronisation.py::test_no_step_waits_for_a_device": (
        *(f"*={method}" for method in METHODS),
        "quantizer=siman",
    ),
    "tasks/test_synchronisation.py::test_nor_does_one_with_more": ("trainer.gradient*",),
    "tasks/test_synchronisation.py::test_whoever_waits_is_named": ("item*", "*tolist"),
    "tasks/test_native.py::test_native_without_a_file_is_the_unified_run": (
        *(f"*-{method}" for method in METHODS),
    ),
    "tasks/test_native.py::test_trains_two_steps": ("irnet_cifar10_resnet20",),
    "tasks/test_native.py::test_biper_trains_both_stages": (),
    "test_chaos.py": (),
    "test_command_line.py": ("*adabin*",),
    "test_experiments.py::test_an_experiment_trains_a_step_as_it_is_typed": (
        "adabin_and_twin",
        "bonn_losses",
    ),
    "test_groups.py::test_trains_one_step": (
        *(f"quantizer={method}" for method in METHODS),
        *(f"loss={name}" for name in ("bonn", "kd", "task")),
        *(f"backbone={name}" for name in ("ssd300_resnet18", "timm", "wrn22")),
        *(f"recipe={name}" for name in ("bayesbinn", "two_step", "unified")),
        "callbacks=default",
        "table=unified_cifar10",
        "scale=demo",
    ),
    "test_groups.py::test_bonns_losses_give_a_detector_the_kernel_loss": (),
    "test_groups.py::test_losses_of_any_quantizer_train_one_step": ("bonn-xnor", "kurtosis-adabin"),
    "test_groups.py::test_every_dataset_trains_one_step": ("digits", "imagenet", "shapes"),
    "test_groups.py::test_every_pair_composes": (
        *(f"{backbone}-{method}" for backbone in ("resnet20", "wrn22") for method in METHODS),
        "ssd300_resnet18-xnor",
    ),
    "test_wheel.py": (),
    "tools/test_prove_code.py::test_stamps_are_renewed_only_with_a_proof": (),
}


def _test(item: pytest.Item) -> tuple[str, str]:
    """A test's file and function below tests/, and its parameters' id."""
    name, _, parameters = item.nodeid.removeprefix("tests/").partition("[")
    return name, parameters.removesuffix("]")


def _entry(name: str) -> str | None:
    """The entry of SLOW for a test of this file and function."""
    return next((key for key in (name, name.partition("::")[0]) if key in SLOW), None)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        name, parameters = _test(item)
        quick = SLOW.get(_entry(name) or "")
        if quick is not None and not any(fnmatchcase(parameters, each) for each in quick):
            item.add_marker(pytest.mark.slow)
    config.stash[COLLECTED] = [_test(item) for item in items]


COLLECTED = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture
def without_a_test(pytestconfig: pytest.Config) -> list[str]:
    """Entries and patterns of SLOW that no test fits, of the files that were collected."""
    tests = pytestconfig.stash[COLLECTED]
    files = {name.partition("::")[0] for name, _ in tests}
    parameters_of = defaultdict(list)
    for name, parameters in tests:
        parameters_of[_entry(name)].append(parameters)
    unused = []
    for key, quick in SLOW.items():
        found = parameters_of[key]
        if key.partition("::")[0] in files:
            unused += [key] if not found else []
            unused += [p for p in quick if not any(fnmatchcase(each, p) for each in found)]
    return unused


@pytest.fixture(autouse=True)
def without_traces_of_a_launch() -> Iterator[None]:
    """Lightning leaves the port of processes that it started in the environment of the others."""
    before = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real data in {folder}")
    return folder


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Composes conf/train.yaml for a run in a temporary folder: ``compose("seed=1", ...)``."""
    from bnnbench import resolvers

    resolvers.register()

    def composed(*overrides: str) -> DictConfig:
        folders = [f"paths.log_dir={tmp_path}/logs", f"paths.output_dir={tmp_path}/run"]
        folders += [f"paths.data_dir={tmp_path}/data"]
        (tmp_path / "run").mkdir(exist_ok=True)
        return hydra.compose("train", [*folders, "callbacks.progress_bar=null", *overrides])

    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield composed


@pytest.fixture
def untimed() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What of a row, or of a history, does not differ from run to run: all but how fast it was."""
    from bnnbench.callbacks.throughput import NAMES

    def without(columns: dict[str, Any]) -> dict[str, Any]:
        assert set(NAMES) <= set(columns)
        return {name: value for name, value in columns.items() if name not in NAMES}

    return without


@pytest.fixture
def short() -> list[str]:
    """Overrides of a run of seconds: ResNet-20 on a few batches of digits."""
    return [
        "backbone=resnet20",
        "trainer.max_epochs=3",
        "trainer.accelerator=cpu",
        "+trainer.limit_train_batches=3",
        "logger=none",
    ]


@pytest.fixture
def fail_at() -> Callable[[pytest.MonkeyPatch, int, BaseException], None]:
    """Makes runs raise an error at the start of an epoch, for as long as the patch holds."""
    from bnnbench.callbacks.progress import QuantizerProgress

    def fail(monkeypatch: pytest.MonkeyPatch, epoch: int, error: BaseException) -> None:
        original = QuantizerProgress.on_train_epoch_start

        def hook(self: Any, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == epoch:
                raise error
            original(self, trainer, module)

        monkeypatch.setattr(QuantizerProgress, "on_train_epoch_start", hook)

    return fail
