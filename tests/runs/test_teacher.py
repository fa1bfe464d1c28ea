"""Teachers: frozen and joint, what they are built of, and what is refused before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from omegaconf import DictConfig

from bnnbench.losses.distillation import soft_target_loss
from bnnbench.optim.roles import parameters_by_role
from bnnbench.records.checkpoints import BadCheckpoint
from bnnbench.records.fingerprint import fingerprint
from bnnbench.records.store import read_result
from bnnbench.runs import run, training
from bnnbench.runs.preflight import preflight
from bnnbench.runs.stages import stages
from bnnbench.runs.teacher import FrozenTeacher, JointTeacher, build_teacher

Compose = Callable[..., DictConfig]
TWO_STAGES = (
    "recipe.stages=[{name: full, set: {quantizer: fp32, loss: task, teacher: none}}, "
    "{name: binary}]"
)


def execute(cfg: DictConfig) -> dict[str, Any]:
    folder = Path(cfg.paths.output_dir)
    folder.mkdir(exist_ok=True)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    return result


def weights(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.fixture
def teacher_run(compose: Compose, short: list[str], tmp_path: Path) -> Path:
    """The folder of a finished full-precision run."""
    execute(compose(*short, "quantizer=fp32", f"paths.output_dir={tmp_path}/teacher"))
    return tmp_path / "teacher"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every teacher that a run builds."""
    teachers: list[Any] = []

    def spy(*arguments: Any) -> Any:
        teachers.append(build_teacher(*arguments))
        return teachers[-1]

    monkeypatch.setattr(training, "build_teacher", spy)
    return teachers


@pytest.mark.parametrize("loss", ["kd", "distributional", "attention"])
def test_a_frozen_teacher_never_changes(
    compose: Compose, short: list[str], teacher_run: Path, built: list[Any], loss: str
) -> None:
    arguments = [f"loss={loss}", "teacher=run", f"teacher.folder={teacher_run}"]
    cfg = compose(*short, *arguments)
    result = execute(cfg)
    before = weights(teacher_run / "checkpoints" / "last.ckpt")
    for name, value in built[0].net.state_dict().items():  # batch norms' statistics among them
        assert torch.equal(value, before[f"net.{name}"]), name
    after = weights(Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt")
    assert not any(name.startswith("teacher") for name in after)
    assert result["choices"]["teacher"] == "run"
    term = {"attention": ["attention", "kd"]}.get(loss, ["kd"])
    assert all(f"train/{name}" in result["history"] for name in term)


def test_the_loss_is_the_teachers_alone_where_labels_have_no_weight(
    compose: Compose, teacher_run: Path
) -> None:
    arguments = ["loss=distributional", "teacher=run", f"teacher.folder={teacher_run}"]
    cfg = compose("backbone=resnet20", *arguments)
    teacher = build_teacher(cfg, {})
    assert isinstance(teacher, FrozenTeacher)
    task = training.build_task(cfg, teacher=teacher)
    task.log = lambda *_, **__: None  # pyright: ignore[reportAttributeAccessIssue]
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    loss = task.training_step((images, labels), 0)
    task.train()
    expected = soft_target_loss(task.net(images), teacher(images), 1.0)
    torch.testing.assert_close(loss, expected)


def test_a_joint_teacher_learns_beside_the_student(
    compose: Compose, short: list[str], built: list[Any]
) -> None:
    cfg = compose(*short, "quantizer=irnet", "loss=kd", "teacher=joint")
    result = execute(cfg)
    first, trained = build_teacher(cfg, {}), built[0]
    assert isinstance(first, JointTeacher)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(first.net.parameters(), trained.net.parameters(), strict=True)
    ]
    assert all(moved)
    assert trained.net.structure.nonlinearity == "relu"  # not IR-Net's Hardtanh
    history = result["history"]["train/teacher"]  # its own task loss
    assert history[-1] < history[0]
    assert result["operations"]["params"] < 300_000  # the student's alone


def test_the_student_starts_as_it_does_alone(compose: Compose) -> None:
    def started(*arguments: str) -> dict[str, torch.Tensor]:
        cfg = compose("backbone=resnet20", *arguments)
        torch.manual_seed(0)
        teacher = build_teacher(cfg, {})
        task = training.build_task(cfg, teacher=teacher)
        if teacher is not None:
            assert not torch.equal(teacher.net.conv1.weight, task.net.conv1.weight)
        return task.net.state_dict()

    alone, taught = started(), started("loss=kd", "teacher=joint")
    assert all(torch.equal(value, taught[name]) for name, value in alone.items())


def test_a_run_in_stages_is_counted_and_evaluated_as_its_last_one(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    arguments = ["loss=kd", "teacher=stage", "teacher.stage=full", TWO_STAGES]
    cfg = compose(*short, *arguments, "trainer.max_epochs=1")
    expected = execute(cfg)["metrics"]["last"]["test/acc"]
    checkpoint = Path(cfg.paths.output_dir) / "stage2_binary" / "checkpoints" / "last.ckpt"
    evaluation = compose(*short, *arguments, "train=false", f"ckpt_path={checkpoint}")
    score = run.execute(evaluation, tmp_path, quiet=True)
    assert score == pytest.approx(expected)
    counted = execute(compose(*short, *arguments, "trainer.max_epochs=0", "force=true"))
    assert counted["bits"] == {"w": 1, "a": 1}


def test_a_joint_teachers_parameters_have_their_roles(compose: Compose) -> None:
    cfg = compose("backbone=resnet20", "loss=kd", "teacher=joint")
    task = training.build_task(cfg, teacher=build_teacher(cfg, {}))
    roles = parameters_by_role(task)
    counted = {id(parameter) for parameters in roles.values() for parameter in parameters}
    assert {id(parameter) for parameter in task.parameters()} == counted
    norms = {id(parameter) for parameter in roles["norm"]}
    assert {id(p) for p in task.teacher.net.stages[0][0].bn1.parameters()} <= norms


def test_the_twin_as_stage_0(compose: Compose, short: list[str], built: list[Any]) -> None:
    cfg = compose(*short, "loss=kd", "teacher=stage", "teacher.stage=full", TWO_STAGES)
    execute(cfg)
    folder = Path(cfg.paths.output_dir)
    before = weights(folder / "stage1_full" / "checkpoints" / "last.ckpt")
    assert built[0] is None  # nobody teaches the first stage
    for name, value in built[1].net.state_dict().items():
        assert torch.equal(value, before[f"net.{name}"]), name


def test_a_model_of_timm(compose: Compose, short: list[str], tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = timm.create_model("resnet10t", num_classes=10, in_chans=1)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    arguments = [
        "loss=kd",
        "teacher=timm",
        "teacher.model=resnet10t",
        f"teacher.checkpoint={tmp_path}/weights.pt",
    ]
    cfg = compose(*short, *arguments, "trainer.max_epochs=1")
    teacher = build_teacher(cfg, {})
    assert teacher is not None
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(teacher(images), model.eval()(images))
    execute(cfg)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("teacher=joint", "no loss term asks it anything"),
        ("loss=kd", "loss term kd needs a teacher"),
        ("loss=attention", "loss term attention needs a teacher"),
        ("loss=kd loss.temperature=0 teacher=joint", "temperature above 0"),
        ("loss=attention loss.normalize=sum teacher=joint", "normalize one of"),
        ("loss=kd teacher=run teacher.folder=nowhere", "nowhere is no finished run"),
        ("loss=kd teacher=stage teacher.stage=full", "no earlier stage of this run"),
        ("loss=kd teacher=timm teacher.model=resnet10t", "needs weights"),
        (
            "loss=kd teacher=timm teacher.model=resnet10t teacher.checkpoint=no.ckpt",
            "teacher.checkpoint=no.ckpt: there is no such file",
        ),
        ("loss=kd teacher=timm teacher.model=resnet10tt teacher.pretrained=true", "resnet10tt"),
        ("backbone=vgg_small loss=attention teacher=joint", "no stages of residual blocks"),
        (
            "loss=kd teacher=timm teacher.model=resnet34 teacher.pretrained=true",
            "know 1000 classes, the data set has 10",
        ),
        ("recipe=native quantizer=r2b loss=kd teacher=joint", "this stage has loss=attention"),
        (
            "recipe=native quantizer=wage loss=squared_hinge",
            "loss=squared_hinge would be without effect",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_training(
    compose: Compose, arguments: str, words: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        preflight([compose("backbone=resnet20", *arguments.split())])


def test_an_evaluation_keeps_the_maps_of_one_batch(compose: Compose) -> None:
    cfg = compose("backbone=resnet20", "loss=attention", "teacher=joint")
    task = training.build_task(cfg, teacher=build_teacher(cfg, {})).eval()
    (term,) = (term for term in task.regularizers if term.name == "attention")
    for _ in range(3):
        task.validation_step((torch.randn(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)), 0)
    assert len(term.maps[0].take()) == 9  # one a block
    assert term.maps[0].take() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("loss=hints teacher=joint loss.bits=12", "loss.bits=12: choose 1 to 8"),
        ("loss=sse loss.error_bits=1", "loss.error_bits=1: choose 2 to 15"),
    ],
)
def test_bits_are_checked_before_any_training(compose: Compose, arguments: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        preflight([compose("backbone=resnet20", *arguments.split())])


def test_a_teacher_of_other_classes_is_refused(compose: Compose, teacher_run: Path) -> None:
    arguments = ["loss=kd", "teacher=run", f"teacher.folder={teacher_run}"]
    cfg = compose("backbone=resnet20", "dataset=cifar100", "trainer.max_epochs=0", *arguments)
    with pytest.raises(ValueError, match="has to know the same classes"):
        preflight([cfg])


def test_a_teacher_of_other_data_is_refused(compose: Compose, teacher_run: Path) -> None:
    """Ten classes both, but not the same ten."""
    arguments = ["loss=kd", "teacher=run", f"teacher.folder={teacher_run}", "trainer.max_epochs=0"]
    cfg = compose("backbone=resnet20", "dataset=fashion_mnist", *arguments)
    with pytest.raises(ValueError, match="was trained on digits, the run is on fashion_mnist"):
        preflight([cfg])


def test_maps_of_other_sizes_are_refused(compose: Compose, teacher_run: Path) -> None:
    arguments = ["loss=hints", "teacher=run", f"teacher.folder={teacher_run}"]
    with pytest.raises(ValueError, match=r"has \(256, 2, 2\), its teacher \(32, 4, 4\)"):
        preflight([compose("backbone=resnet18", *arguments)])
    cfg = compose("backbone=resnet18", *arguments)  # and where there is no sweep
    with pytest.raises(ValueError, match="compares maps of equal size"):
        execute(cfg)


def test_a_run_in_stages_teaches_with_its_last(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "staged"
    binary = "recipe.stages=[{name: full, set: {quantizer: fp32}}, {name: binary}]"
    execute(compose(*short, "quantizer=xnor", binary, f"paths.output_dir={folder}"))
    cfg = compose(*short, "loss=kd", "teacher=run", f"teacher.folder={folder}")
    teacher = build_teacher(cfg, {})
    assert teacher is not None
    assert teacher.net.structure.quantizer.name == "xnor"
    trained = weights(folder / "stage2_binary" / "checkpoints" / "last.ckpt")
    assert all(
        torch.equal(v, trained[f"net.{name}"]) for name, v in teacher.net.state_dict().items()
    )
    execute(cfg)


def test_a_joint_twin_has_the_methods_block(compose: Compose) -> None:
    cfg = compose("backbone=resnet20", "quantizer=r2b", "loss=hints", "teacher=joint")
    teacher = build_teacher(cfg, {})
    assert teacher is not None
    assert teacher.net.structure.block == "pre_activation"


def test_a_twin_of_another_network_is_no_start(compose: Compose) -> None:
    arguments = ["loss=hints", "teacher=joint", "teacher.stage=full"]
    cfg = compose("backbone=resnet20", "quantizer=r2b", *arguments)
    cfg.recipe.stages = [
        {"name": "full", "set": {"loss": "task", "teacher": "none", "backbone.downsample": "conv"}},
        {"name": "both"},
    ]
    with pytest.raises(BadCheckpoint, match=r"teacher\.stage=full is of another network"):
        preflight([cfg])


def test_counting_and_evaluating_need_no_teacher(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose weights may be far away."""

    def unasked(*_: Any, **__: Any) -> None:
        raise AssertionError("a teacher was built")

    monkeypatch.setattr(training, "build_teacher", unasked)
    cfg = compose("backbone=resnet20", "loss=attention", "teacher=joint", "trainer.max_epochs=0")
    assert execute(cfg)["choices"]["teacher"] == "joint"


def test_a_stage_that_does_not_exist_is_refused(compose: Compose) -> None:
    arguments = ["loss=kd", "teacher=stage", "teacher.stage=fill", TWO_STAGES]
    with pytest.raises(ValueError, match=r"no earlier stage of this run; there are \['full'\]"):
        preflight([compose("backbone=resnet20", *arguments)])


def test_a_sweep_is_checked_before_its_runs_have_folders(compose: Compose) -> None:
    arguments = ["loss=kd", "teacher=stage", "teacher.stage=full", TWO_STAGES]
    cfg = compose("backbone=resnet20", *arguments)
    cfg.paths.output_dir = "${hydra:runtime.output_dir}"  # as it is outside of any job
    preflight([cfg])


def test_weights_of_another_network_are_refused(compose: Compose, tmp_path: Path) -> None:
    torch.save({"state_dict": {"net.fc.weight": torch.zeros(10, 64)}}, tmp_path / "some.ckpt")
    arguments = ["loss=kd", "teacher=timm", "teacher.model=resnet10t"]
    words = r"some\.ckpt is a checkpoint of another network.*71 missing, first model\.conv1"
    with pytest.raises(BadCheckpoint, match=words):
        preflight([compose(*arguments, f"teacher.checkpoint={tmp_path}/some.ckpt")])


def test_the_fingerprint_knows_what_the_teacher_knows(
    compose: Compose, teacher_run: Path, tmp_path: Path
) -> None:
    def of(*arguments: str) -> str:
        return fingerprint(compose("backbone=resnet20", "loss=kd", *arguments))

    taught = of("teacher=run", f"teacher.folder={teacher_run}")
    teacher_run.rename(tmp_path / "moved")
    assert of("teacher=run", f"teacher.folder={tmp_path}/moved") == taught
    assert of("teacher=joint") != taught
    checkpoint = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    state["state_dict"]["net.fc.weight"] += 1
    torch.save(state, checkpoint)
    assert of("teacher=run", f"teacher.folder={tmp_path}/moved") != taught
    assert fingerprint(compose("teacher=none")) == fingerprint(compose())


def test_two_steps_are_binary_activations_and_then_both(compose: Compose, short: list[str]) -> None:
    cfg = compose(*short, "quantizer=adabin", "recipe=two_step", "trainer.max_epochs=4")
    first, second = stages(cfg)
    nets = [training.build_task(stage.cfg).net for stage in (first, second)]
    sides = [next(m for m in net.modules() if hasattr(m, "weight_quantizer")) for net in nets]
    bits = [(s.weight_quantizer.bits, s.activation_quantizer.bits) for s in sides]
    assert bits == [(32, 1), (1, 1)]
    assert first.cfg.trainer.max_epochs + second.cfg.trainer.max_epochs == 4
    assert (first.cfg.recipe.weight_decay, second.cfg.recipe.weight_decay) == (1e-5, 0)
    result = execute(cfg)
    rates = result["history"]["lr"]
    assert rates[:2] == pytest.approx(rates[2:])  # each starts anew
    assert [stage["epochs"] for stage in result["stages"]] == [2, 2]
