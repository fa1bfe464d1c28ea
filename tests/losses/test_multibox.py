"""SSD's MultiBox loss against a loop written from the paper."""

import pytest
import torch
import torch.nn.functional as F

from bnnbench.backbones.ssd import HeadOutputs
from bnnbench.config import build_backbone
from bnnbench.losses import task_loss
from bnnbench.losses.multibox import match

CLASSES = 3


@pytest.fixture(scope="module")
def net():
    return build_backbone("ssd300_resnet18", "fp32", num_classes=CLASSES, image_size=64)


def outputs(net, images, seed=0):
    torch.manual_seed(seed)
    boxes = len(net.anchors)
    logits = torch.randn(images, boxes, CLASSES + 1, dtype=torch.float32)
    return HeadOutputs(logits.requires_grad_(), torch.randn(images, boxes, 4).requires_grad_())


def target(*objects):
    boxes = torch.tensor([box for *box, _ in objects], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([label for *_, label in objects], dtype=torch.int64)
    return {"boxes": boxes, "labels": labels}


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    area = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return shared / (sum(area) - shared)


def by_hand(anchors, out, targets):
    """Classification and localization sums over the number of matched boxes."""
    cross_entropy, smooth, matched = 0.0, 0.0, 0
    for logits, offsets, truth in zip(*out, targets, strict=True):
        labels = torch.zeros(len(anchors), dtype=torch.int64)
        for i, anchor in enumerate(anchors.tolist()):
            overlaps = [iou(anchor, box) for box in truth["boxes"].tolist()]
            if overlaps and max(overlaps) >= 0.5:
                labels[i] = overlaps.index(max(overlaps)) + 1
        for j, box in enumerate(truth["boxes"].tolist()):
            overlaps = [iou(anchor, box) for anchor in anchors.tolist()]
            labels[overlaps.index(max(overlaps))] = j + 1
        losses = []
        for i, owner in enumerate(labels.tolist()):
            wanted = truth["labels"][owner - 1] if owner else torch.tensor(0)
            loss = F.cross_entropy(logits[i], wanted)
            if not owner:
                losses.append(loss)
                continue
            cross_entropy, matched = cross_entropy + loss, matched + 1
            smooth += F.smooth_l1_loss(
                offsets[i], encoded(anchors[i], truth["boxes"][owner - 1]), reduction="sum"
            )
        hardest = sorted(losses, reverse=True)[: 3 * int((labels > 0).sum())]
        cross_entropy = cross_entropy + sum(hardest)
    return cross_entropy / max(matched, 1), smooth / max(matched, 1)


def encoded(anchor, box):
    size, extent = anchor[2:] - anchor[:2], box[2:] - box[:2]
    shift = (box[:2] + box[2:]) / 2 - (anchor[:2] + anchor[2:]) / 2
    return torch.cat([shift / size / 0.1, (extent / size).log() / 0.2])


def test_equals_the_loop(net):
    targets = [
        target((3, 3, 30, 35, 1), (20, 20, 62, 60, 3)),
        target((40, 5, 55, 20, 2)),
    ]
    out = outputs(net, 2)
    parts = task_loss("detection")(net, out, targets)
    classification, localization = by_hand(net.anchors, out, targets)
    torch.testing.assert_close(parts.classification, classification)
    torch.testing.assert_close(parts.localization, localization)


def test_a_batch_without_objects_costs_nothing_and_is_finite(net):
    out = outputs(net, 2)
    parts = task_loss("detection")(net, out, [target(), target()])
    assert [float(part) for part in parts] == [0, 0]
    sum(parts).backward()
    assert out.class_logits.grad is not None
    assert bool((out.class_logits.grad == 0).all())


def test_an_image_without_objects_changes_nothing(net):
    loss, out = task_loss("detection"), outputs(net, 2)
    both = loss(net, out, [target((3, 3, 30, 35, 1)), target()])
    alone = loss(net, HeadOutputs(*(o[:1] for o in out)), [target((3, 3, 30, 35, 1))])
    torch.testing.assert_close(both, alone)


def test_every_truth_has_a_box_however_small_it_is(net):
    truths = torch.tensor([[1.0, 1, 3, 3], [30, 30, 34, 33], [0, 0, 64, 64]])
    assert set(match(net, net.anchors, truths).tolist()) >= {0, 1, 2}


def test_at_most_three_unmatched_boxes_count_for_a_matched_one(net):
    """Zero logits cost log 4 a box: the sum counts the boxes that take part."""
    boxes = len(net.anchors)
    out = HeadOutputs(torch.zeros(1, boxes, CLASSES + 1), torch.zeros(1, boxes, 4))
    parts = task_loss("detection")(net, out, [target((3, 3, 30, 35, 1))])
    assert float(parts.classification) == pytest.approx(4 * torch.log(torch.tensor(4.0)).item())


def test_label_smoothing_is_for_classification():
    with pytest.raises(ValueError, match="is for classification"):
        task_loss("detection", 0.1)
