"""VOC average precision: answers by hand, published ones, a slow reference, COCO's evaluator."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from bnnbench.metrics import VOCAveragePrecision

from .processes import answers

Image = dict[str, Tensor]
INTERPOLATIONS = ["11point", "area"]
A, B = (0, 0, 10, 10), (20, 20, 30, 30)
FAR = (50, 50, 60, 60)


def pred(*rows: tuple[Any, float, int]) -> Image:
    """Detections of an image, each (box, score, label)."""
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([row[1] for row in rows], dtype=torch.float32),
        "labels": torch.tensor([row[2] for row in rows], dtype=torch.int64),
    }


def target(*rows: tuple[Any, int, int]) -> Image:
    """Truths of an image, each (box, label, difficult)."""
    return {
        "boxes": torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([row[1] for row in rows], dtype=torch.int64),
        "difficult": torch.tensor([row[2] for row in rows], dtype=torch.int64),
    }


def metric(images: list[tuple[Image, Image]], **options: Any) -> VOCAveragePrecision:
    """The metric after one update for each image."""
    result = VOCAveragePrecision(**options)
    for detected, true in images:
        result.update([detected], [true])
    return result


def ap(images: list[tuple[Image, Image]], **options: Any) -> dict[int, float]:
    """AP of each class; checks that the mean belongs to it."""
    result = metric(images, **options).compute()
    values = {label: float(value) for label, value in result["ap"].items()}
    assert float(result["map"]) == pytest.approx(sum(values.values()) / len(values), abs=1e-12)
    return values


# By hand ---------------------------------------------------------------------------------------


def two_classes() -> list[tuple[Image, Image]]:
    """At IoU 0.4, class 0 has two truths and false, hit, false; class 1 one truth, false, hit."""
    first = pred((FAR, 0.9, 0), (A, 0.8, 1), ((20, 20, 30, 24), 0.3, 1))
    second = pred(((0, 0, 10, 4), 0.7, 0), ((0, 0, 10, 3.9), 0.6, 0))
    return [(first, target((A, 0, 0), (B, 1, 0))), (second, target((A, 0, 0)))]


@pytest.mark.parametrize(
    ("interpolation", "expected"),
    [("area", {0: 0.25, 1: 0.5}), ("11point", {0: 3 / 11, 1: 0.5})],
)
def test_two_classes(interpolation, expected):
    values = ap(two_classes(), iou_threshold=0.4, interpolation=interpolation)
    assert values == pytest.approx(expected, abs=1e-12)


def test_curves_of_two_classes():
    curves = metric(two_classes(), iou_threshold=0.4).curves()
    assert list(curves) == [0, 1]
    assert [x.tolist() for x in curves[0]] == [[0, 1 / 2, 1 / 3], [0, 1 / 2, 1 / 2]]
    assert [x.tolist() for x in curves[1]] == [[0, 1 / 2], [0, 1]]
    assert all(x.dtype == torch.float64 for pair in curves.values() for x in pair)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_detections_of_a_difficult_truth_do_not_count(interpolation):
    detected = pred((FAR, 0.9, 4), (A, 0.8, 4), (A, 0.7, 4), (FAR, 0.6, 4), (B, 0.5, 4))
    result = metric([(detected, target((A, 4, 1), (B, 4, 0)))], interpolation=interpolation)
    precision, recall = result.curves()[4]
    assert precision.tolist() == [0, 0, 1 / 3]
    assert recall.tolist() == [0, 0, 1]
    assert float(result.compute()["map"]) == pytest.approx(1 / 3, abs=1e-12)


def test_a_detection_belongs_to_its_best_truth_even_if_that_is_taken():
    """COCO's evaluator gives the second detection the other truth, and 1."""
    detected = pred(((0, 0, 10, 9.9), 0.9, 0), ((0, 0, 10, 9.5), 0.8, 0))
    images = [(detected, target((A, 0, 0), ((0, 0, 10, 8), 0, 0)))]
    assert ap(images)[0] == pytest.approx(6 / 11, abs=1e-12)
    assert ap(images, interpolation="area")[0] == pytest.approx(0.5, abs=1e-12)


def test_a_difficult_box_does_not_forgive_what_lies_inside():
    """COCO's evaluator, told that the box is a crowd, gives 1."""
    detected = pred(((10, 10, 20, 20), 0.9, 0), ((200, 200, 220, 220), 0.8, 0))
    true = target(((0, 0, 100, 100), 0, 1), ((200, 200, 220, 220), 0, 0))
    assert ap([(detected, true)]) == {0: 0.5}


@pytest.mark.parametrize(("first", "expected"), [(0, 1.0), (1, 0.0)])
def test_of_equally_near_truths_the_first_is_taken(first, expected):
    true = target((A, 0, first), (A, 0, 1 - first))
    assert ap([(pred((A, 0.9, 0)), true)]) == {0: pytest.approx(expected)}


def test_the_best_score_takes_the_truth():
    detected = pred(((0, 0, 10, 6), 0.3, 0), (A, 0.2, 0), ((0, 0, 10, 7), 0.9, 0))
    curve, _ = metric([(detected, target((A, 0, 0)))]).curves()[0]
    assert curve.tolist() == [1, 1 / 2, 1 / 3]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("plus_one", [False, True])
def test_truths_fed_back_are_perfect(interpolation, plus_one):
    images = [
        ({**true, "scores": detected["scores"][: len(true["labels"])]}, true)
        for detected, true in random_images(1, 20)
    ]
    values = ap(images, interpolation=interpolation, plus_one=plus_one)
    assert len(values) == 3
    assert all(value == pytest.approx(1, abs=1e-12) for value in values.values())


@pytest.mark.parametrize(
    ("found", "truths"), [(0, 10), (1, 10), (3, 10), (6, 10), (7, 10), (10, 10), (9, 30), (4, 7)]
)
def test_recalls_of_the_eleven_points_are_exact(found, truths):
    """3 of 10 reach 0.3: 4 points; 3 * 0.1 in floating point is larger."""
    boxes = [(20 * i, 0, 20 * i + 10, 10) for i in range(truths)]
    detected = pred(*[(box, 0.9, 0) for box in boxes[:found]])
    expected = (10 * found // truths + 1) / 11 if found else 0
    result = ap([(detected, target(*[(box, 0, 0) for box in boxes]))])
    assert result[0] == pytest.approx(expected, abs=1e-12)


def test_an_iou_at_the_threshold_is_enough():
    images = [(pred(((0, 0, 10, 5), 0.9, 0)), target((A, 0, 0)))]
    assert ap(images, iou_threshold=0.5) == {0: pytest.approx(1)}
    assert ap(images, iou_threshold=0.5001) == {0: 0}


def test_the_extra_pixel():
    """10 x 5 of 10 x 10 pixels; 9 x 4 of 9 x 9 without it."""
    images = [(pred(((0, 0, 9, 4), 0.9, 0)), target(((0, 0, 9, 9), 0, 0)))]
    assert ap(images, plus_one=True) == {0: pytest.approx(1)}
    assert ap(images, plus_one=False) == {0: 0}
    assert ap(images, plus_one=False, iou_threshold=0.44) == {0: pytest.approx(1)}


def test_disjoint_and_empty_boxes_do_not_overlap():
    """Products of two negative sides, and 0 / 0."""
    boxes = [(40, 40, 50, 50), (10, 10, 10, 10), (10, 10, 0, 0), (10, 0, 20, 10)]
    detected = pred(*[(box, 0.9, 0) for box in boxes])
    true = target((A, 0, 0), ((10, 10, 10, 10), 0, 0), ((40, 60, 50, 70), 0, 0))
    assert ap([(detected, true)], iou_threshold=1e-3) == {0: 0}
    with_pixel, _ = metric([(detected, true)], iou_threshold=1e-3, plus_one=True).curves()[0]
    assert (with_pixel * torch.arange(1, 5)).tolist() == [0, 1, 1, 2]


def test_equal_scores_stay_in_the_order_of_the_updates():
    hit, miss = (pred((A, 0.5, 0)), target((A, 0, 0))), (pred((FAR, 0.5, 0)), target())
    assert ap([hit] * 32 + [miss] * 32) == {0: pytest.approx(1)}
    assert ap([miss] * 32 + [hit] * 32) == {0: pytest.approx(0.5)}


def test_equal_scores_of_an_image_stay_in_order():
    boxes = [(20 * i, 0, 20 * i + 10, 10) for i in range(32)]
    hits = [(box, 0.5, 0) for box in boxes]
    true = target(*[(box, 0, 0) for box in boxes])
    assert ap([(pred(*hits, *[(FAR, 0.5, 0)] * 32), true)]) == {0: pytest.approx(1)}
    assert ap([(pred(*[(FAR, 0.5, 0)] * 32, *hits), true)]) == {0: pytest.approx(0.5)}


def test_labels_are_any_integers_and_classes_without_a_truth_are_left_out():
    labels = (0, -3, 2**40)
    detected = pred(*[(A, 0.9, label) for label in labels], (A, 0.9, 5), (A, 0.9, 6))
    true = target(*[(A, label, 0) for label in labels], (A, 6, 1))
    assert ap([(detected, true)]) == {label: pytest.approx(1) for label in labels}


def test_a_class_without_detections_counts_as_0():
    result = metric([(pred((A, 0.9, 0)), target((A, 0, 0), (B, 1, 0)))])
    assert float(result.compute()["map"]) == pytest.approx(0.5)
    assert [x.shape for x in result.curves()[1]] == [(0,), (0,)]


def test_without_a_truth_that_counts_the_mean_is_nan():
    for images in ([], [(pred(), target())], [(pred((A, 0.9, 0)), target((A, 0, 1)))]):
        result = VOCAveragePrecision()
        result.update([image[0] for image in images], [image[1] for image in images])
        assert result.compute()["map"].isnan()
        assert result.compute()["ap"] == result.curves() == {}


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_without_an_update_the_mean_is_nan():
    assert VOCAveragePrecision().compute()["map"].isnan()


def test_types_of_the_tensors_do_not_matter():
    detected, true = random_images(2, 1)[0]
    whole = {key: value.round() for key, value in detected.items() if key == "boxes"}
    expected = ap([(detected | whole, true)])
    scores = detected["scores"].double().requires_grad_()
    labels, boxes = detected["labels"].to(torch.int8), whole["boxes"].long()
    other = {"boxes": boxes, "labels": labels, "scores": scores}
    truth = true | {"difficult": true["difficult"].bool(), "labels": true["labels"].int()}
    assert ap([(other, truth)]) == expected


def test_the_graph_of_the_scores_is_not_kept():
    detected, true = random_images(2, 1)[0]
    result = VOCAveragePrecision()
    value = result([detected | {"scores": detected["scores"].requires_grad_()}], [true])  # forward
    assert not value["map"].requires_grad
    assert not any(scores.requires_grad for scores in result.scores)


def test_boxes_may_be_fractions_of_the_image():
    images = random_images(3, 10)

    def small(side: Image) -> Image:
        return {**side, "boxes": side["boxes"] / 128}

    assert ap([(small(detected), small(true)) for detected, true in images]) == ap(images)


def test_difficult_may_be_missing_in_some_images():
    easy = {key: value for key, value in target((A, 0, 0)).items() if key != "difficult"}
    images = [(pred((A, 0.9, 0)), easy), (pred((B, 0.8, 0)), target((B, 0, 1), (A, 0, 0)))]
    assert ap(images, interpolation="area") == {0: 0.5}


# Published ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seven_images(shared_data: Path) -> list[tuple[Image, Image]]:
    """7 images with 15 truths and 24 detections, three scores tied (Padilla et al.)."""
    folder = shared_data / "evaluator_cases" / "voc_ap_case_1"
    if not folder.is_dir():
        pytest.skip(f"needs the published case in {folder}")

    def rows(path: Path) -> Iterator[tuple[tuple[float, ...], float]]:
        for line in path.read_text().splitlines():
            *score, x, y, width, height = map(float, line.split()[1:])
            yield (x, y, x + width, y + height), sum(score)  # truths have no score

    return [
        (
            pred(*[(box, score, 0) for box, score in rows(path)]),
            target(*[(box, 0, 0) for box, _ in rows(folder / "gts" / path.name)]),
        )
        for path in sorted((folder / "dets").glob("*.txt"))
    ]


@pytest.mark.parametrize(
    ("threshold", "eleven", "area", "missed"),
    [
        (0.1, 0.3333333333, 0.3371980676, 9 / 23),
        (0.3, 0.2683982683, 0.2456866804, 0),
        (0.5, 0.0303030303, 0.0222222222, 0),
        (0.75, 0, 0, 0),
    ],
)
def test_published_values(seven_images, threshold, eleven, area, missed):
    """The authors compare 9 / 15 with 0.6000000000000001 and miss one point of the eleven."""
    options = {"iou_threshold": threshold, "plus_one": True}
    assert ap(seven_images, interpolation="area", **options)[0] == pytest.approx(area, abs=1e-9)
    assert ap(seven_images, **options)[0] == pytest.approx(eleven + missed / 11, abs=1e-9)
    precision, recall = metric(seven_images, **options).curves()[0]
    rounded = [precision[recall >= 0.1 * k].tolist() for k in range(11)]
    assert sum(max(points, default=0) for points in rounded) / 11 == pytest.approx(eleven, abs=1e-9)


def test_published_percentages_show_the_extra_pixel(seven_images):
    values = [
        100 * ap(seven_images, iou_threshold=0.3, interpolation=kind, plus_one=plus_one)[0]
        for kind in INTERPOLATIONS
        for plus_one in (True, False)
    ]
    assert values[:2] == pytest.approx([26.83983] * 2, abs=5e-6)
    assert values[2] == pytest.approx(24.56867, abs=5e-6)
    assert values[3] == pytest.approx(22.54, abs=5e-3)


# Other evaluators --------------------------------------------------------------------------------


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    corner, size = torch.rand(2, count, 2, generator=generator)
    return torch.cat((60 * corner, 60 * corner + 10 + 40 * size), 1)


def random_images(seed: int, count: int) -> list[tuple[Image, Image]]:
    """Crowded truths of classes -1, 0, 1, some difficult; near and far detections; no ties."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, size: int) -> Tensor:
        return torch.randint(low, high, (size,), generator=generator)

    scores = torch.randperm(count * 40, generator=generator) / (count * 40)
    images = []
    for image in range(count):
        truths = int(integers(3, 7, 1))
        boxes, labels = random_boxes(truths, generator), integers(-1, 2, truths)
        copied = integers(0, truths, 10)
        near = boxes[copied] + 4 * torch.randn(10, 4, generator=generator)
        detected = {
            "boxes": torch.cat((near, random_boxes(5, generator))),
            "scores": scores[40 * image :][:15],
            "labels": torch.cat((labels[copied], integers(-1, 2, 5))),
        }
        true = {"boxes": boxes, "labels": labels, "difficult": integers(0, 4, truths) == 0}
        images.append((detected, true))
    return images


def slow_iou(a: list[float], b: list[float], extra: int) -> float:
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + extra for i in (0, 1)]
    if min(sides) <= 0:
        return 0.0
    areas = [(box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def slow_hits(
    images: list[tuple[Image, Image]], label: int, threshold: float, extra: int
) -> tuple[list[bool], int]:
    """One detection after the other, over all images, as the devkit reads its result file."""
    truths = {
        (i, j): (box, bool(true["difficult"][j]))
        for i, (_, true) in enumerate(images)
        for j, box in enumerate(true["boxes"].tolist())
        if int(true["labels"][j]) == label
    }
    detections = [
        (-float(score), i, box)
        for i, (detected, _) in enumerate(images)
        for box, score, kind in zip(
            detected["boxes"].tolist(), detected["scores"], detected["labels"], strict=True
        )
        if int(kind) == label
    ]
    taken, hits = set(), []
    for _, i, box in sorted(detections):
        overlaps = {key: slow_iou(box, truths[key][0], extra) for key in truths if key[0] == i}
        best = max(overlaps, key=lambda key: overlaps[key], default=None)
        if best is None or overlaps[best] < threshold:
            hits.append(False)
        elif not truths[best][1]:
            hits.append(best not in taken)
            taken.add(best)
    return hits, sum(not hard for _, hard in truths.values())


def slow_ap(hits: list[bool], truths: int, interpolation: str) -> float:
    points = [(sum(hits[:n]), sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]

    def best_from(found: float) -> float:
        return max((precision for hit, precision in points if hit >= found), default=0.0)

    if interpolation == "11point":
        return sum(best_from(k * truths / 10) for k in range(11)) / 11
    steps = sorted({0, *(hit for hit, _ in points)})
    return sum((high - low) / truths * best_from(high) for low, high in pairwise(steps))


@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_against_a_slow_reference(threshold, interpolation, plus_one):
    images = random_images(3, 30)
    result = metric(
        images, iou_threshold=threshold, interpolation=interpolation, plus_one=plus_one
    ).compute()
    expected = {
        label: slow_ap(*slow_hits(images, label, threshold, plus_one), interpolation)
        for label in (-1, 0, 1)
    }
    assert all(0 < value < 0.97 for value in expected.values())
    values = {label: float(value) for label, value in result["ap"].items()}
    assert values == pytest.approx(expected, abs=1e-12)


def separated_images(seed: int) -> tuple[list[Image], list[Image]]:
    """Truths in a grid of 100 pixels; two detections near each, and 180 far ones of low score."""
    generator = torch.Generator().manual_seed(seed)
    preds, targets = [], []
    for _ in range(10):
        cells = torch.randperm(16, generator=generator)[:8]
        corner = 100 * torch.stack((cells % 4, cells // 4), 1) + 20
        boxes = torch.cat((corner, corner + 30 + 20 * torch.rand(8, 2, generator=generator)), 1)
        near = boxes.repeat(2, 1) + 5 * torch.randn(16, 4, generator=generator)
        labels = torch.randint(3, (8,), generator=generator)
        kinds = torch.randint(-6, 3, (180,), generator=generator).clamp_min(0)  # more than 100 of 0
        power = torch.tensor([1] * 16 + [8] * 180)
        detected = {
            "boxes": torch.cat((near, random_boxes(180, generator) + 500)),
            "labels": torch.cat((labels.repeat(2), kinds)),
            "scores": torch.rand(196, generator=generator) ** power,
        }
        preds.append(detected)
        targets.append({"boxes": boxes, "labels": labels})
    return preds, targets


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_cocos_evaluator_where_their_rules_agree(seed):
    """Truths far from each other, none difficult, 11 recalls, up to 200 detections an image."""
    coco = MeanAveragePrecision(
        iou_thresholds=[0.5],
        rec_thresholds=[k / 10 for k in range(11)],
        max_detection_thresholds=[1, 10, 200],
    )
    voc = VOCAveragePrecision()
    for each in (coco, voc):
        each.update(*separated_images(seed))
    expected = float(coco.compute()["map_50"])  # its "map" knows 100 detections only
    assert 0.1 < expected < 0.9
    assert float(voc.compute()["map"]) == pytest.approx(expected, abs=1e-6)


# Updates, processes, errors ----------------------------------------------------------------------


def test_batches_do_not_matter_and_forward_gives_the_batchs_own():
    images = random_images(4, 9)
    alone, batched = metric(images), VOCAveragePrecision()
    for start in range(0, 9, 4):
        part = images[start : start + 4]
        value = batched([image[0] for image in part], [image[1] for image in part])
        assert value == metric(part).compute()
    assert batched.compute() == alone.compute()


def test_reset_forgets_the_images():
    result = metric(random_images(5, 3))
    first = result.compute()
    result.reset()
    result.update([pred((A, 0.9, 8))], [target((A, 8, 0))])
    assert {k: float(v) for k, v in result.compute()["ap"].items()} == {8: pytest.approx(1)}
    result.reset()
    for detected, true in random_images(5, 3):
        result.update([detected], [true])
    assert result.compute() == first


Split = tuple[list[tuple[Image, Image]], list[tuple[Image, Image]]]


def splits() -> dict[str, Split]:
    """Images of two processes."""
    images = random_images(6, 9)
    blind = [(pred(), true) for _, true in random_images(7, 2)]
    bare = [(detected, target()) for detected, _ in random_images(8, 3)]
    return {
        "alternating": (images[::2], images[1::2]),
        "uneven": (images[:1], images[1:]),
        "no detections": (images, blind),
        "no truths": (bare, images),
        "no boxes": (images, [(pred(), target())]),
        "no images": (images, []),
        "no images first": ([], images),
        "nothing": ([], []),
    }


def answered(result: VOCAveragePrecision) -> dict[str, Any]:
    return {**result.compute(), "curves": result.curves()}


def process(rank: int) -> dict[str, Any]:
    """The answers of one of two processes for each split, and after more images."""
    results = {}
    for name, split in splits().items():
        gathered = metric(split[rank])
        results[name] = answered(gathered)
        detected, true = random_images(9 + rank, 1)[0]
        gathered.update([detected], [true])
        results[f"{name}, continued"] = answered(gathered)
    return results


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes answers, for all splits."""
    return answers(process, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("name", splits())
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_two_processes_answer_as_one(gathered, name):
    first, second = splits()[name]
    alone = metric(first + second)
    more = first + random_images(9, 1) + second + random_images(10, 1)
    for rank in (0, 1):
        exact = {"rtol": 0, "atol": 0, "equal_nan": True}
        torch.testing.assert_close(gathered[rank][name], answered(alone), **exact)
        continued = gathered[rank][f"{name}, continued"]
        torch.testing.assert_close(continued, answered(metric(more)), **exact)


def without(key: str) -> Callable[[Image], Any]:
    return lambda image: {name: value for name, value in image.items() if name != key}


def changed(key: str, change: Callable[[Tensor], Any]) -> Callable[[Image], Any]:
    return lambda image: {**image, key: change(image[key])}


@pytest.mark.parametrize(
    ("side", "change", "message"),
    [
        ("preds", without("boxes"), r"preds\[1\] lacks \['boxes'\]: each image needs"),
        ("preds", without("scores"), r"preds\[1\] lacks \['scores'\]"),
        ("targets", without("labels"), r"targets\[1\] lacks \['labels'\]"),
        ("preds", changed("boxes", lambda x: x[:, :3]), r"\['boxes'\] has shape \(1, 3\)"),
        ("targets", changed("boxes", torch.flatten), r"\['boxes'\] has shape \(4,\)"),
        ("preds", changed("scores", lambda x: x[:, None]), r"must be \(1,\)"),
        ("preds", changed("scores", lambda x: x[:0]), r"shape \(0,\) beside 1 labels"),
        ("preds", changed("labels", torch.squeeze), r"\['labels'\] has shape \(\)"),
        ("preds", changed("boxes", lambda x: x[0, :0]), r"without boxes: boxes \(0, 4\)"),
        ("targets", changed("difficult", lambda x: x[:0]), r"\['difficult'\] has shape \(0,\)"),
        ("targets", changed("labels", torch.Tensor.float), r"float32: convert .*\.long\(\)"),
        ("preds", changed("labels", torch.Tensor.bool), r"torch.bool: convert"),
        ("preds", changed("scores", torch.Tensor.tolist), r"\['scores'\] must be tensors"),
        ("targets", lambda image: [image], r"targets\[1\] is a list: give a list with one"),
    ],
)
def test_bad_images_are_named_and_none_counts(side, change, message):
    images = [(pred((A, 0.9, 0)), target((A, 0, 0))), (pred((A, 0.8, 1)), target((A, 1, 0)))]
    lists = {"preds": [x[0] for x in images], "targets": [x[1] for x in images]}
    lists[side][1] = change(lists[side][1])
    result = VOCAveragePrecision()
    with pytest.raises(ValueError, match=message):
        result.update(**lists)
    result.update([], [])
    assert result.compute()["ap"] == {}


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="1 preds and 2 targets: give one of each"):
        VOCAveragePrecision().update([pred()], [target(), target()])


def test_one_image_without_its_list_is_refused():
    with pytest.raises(ValueError, match=r"preds\[0\] is a str: give a list"):
        VOCAveragePrecision().update(pred(), target())  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou_threshold": 0}, r"iou_threshold=0: choose a number in \(0, 1\]"),
        ({"iou_threshold": 50}, "iou_threshold=50"),
        ({"iou_threshold": float("nan")}, "iou_threshold=nan"),
        ({"interpolation": "101point"}, "interpolation='101point': choose one of"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VOCAveragePrecision(**options)
