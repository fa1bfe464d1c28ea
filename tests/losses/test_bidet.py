"""BiDet's terms against loops written out here, and where they switch on."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import nms

from bnnbench.backbones.ssd import HeadOutputs
from bnnbench.config import build_backbone
from bnnbench.losses.bidet import (
    InformationBottleneck,
    SparseObjectPrior,
    information_bottleneck,
    sparse_object_prior,
)
from bnnbench.losses.context import StepContext


def test_bottleneck_is_the_mean_square_of_each_map_equally_weighted():
    maps = [torch.full((2, 1, 4, 4), 2.0), torch.full((2, 3, 1, 1), -4.0)]
    assert float(information_bottleneck(maps)) == (4 + 16) / 2


def test_prior_of_equal_scores_is_the_logarithm_of_their_number():
    """Four detections of two objects: log 4 / 2. The other groups have no surplus, or no object."""
    scores = torch.full((8,), 0.3)
    groups = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2])
    loss = sparse_object_prior(scores, groups, torch.tensor([2.0, 1, 0, 1]))
    assert float(loss) == pytest.approx(math.log(4) / 2)


def test_priors_gradient_has_a_constant_sum():
    """p = s / S with S a constant: the gradient is -(log p + 1) / S over the truths."""
    scores = torch.tensor([0.5, 0.3, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
    groups = torch.tensor([0, 0, 0, 1])
    sparse_object_prior(scores, groups, torch.tensor([2.0, 1.0]).double()).backward()
    p = scores.detach()[:3] / 1.0
    expected = torch.cat([-(p.log() + 1) / 2, torch.zeros(1).double()])
    torch.testing.assert_close(scores.grad, expected)


def test_without_surplus_it_is_zero_and_finite():
    scores = torch.tensor([0.5], requires_grad=True)
    sparse_object_prior(scores, torch.tensor([0]), torch.tensor([1.0])).backward()
    assert float(scores.grad) == 0
    assert float(sparse_object_prior(torch.empty(0), torch.empty(0).long(), torch.ones(2))) == 0


def step(seed=0):
    torch.manual_seed(seed)
    net = build_backbone("ssd300_resnet18", "fp32", num_classes=3, image_size=64)
    boxes = len(net.anchors)
    logits = (2 * torch.randn(2, boxes, 4)).requires_grad_()
    outputs = HeadOutputs(logits, torch.randn(2, boxes, 4))
    labels = ([1, 1, 3], [2])
    targets = [{"labels": torch.tensor(own), "boxes": torch.rand(len(own), 4)} for own in labels]
    return net, StepContext(outputs, [], targets, [])


def prior_by_hand(net, context):
    outputs, total, groups = context.logits, 0.0, 0
    for image, target in enumerate(context.targets):
        scores = outputs.class_logits[image].softmax(1)
        boxes = net.box_coder.decode_single(outputs.offsets[image], net.anchors)
        for label in (1, 2, 3):
            truths = int((target["labels"] == label).sum())
            best = scores[:, label].argsort(descending=True)[:200]
            best = best[scores[best, label] > 0.03]
            kept = best[nms(boxes[best], scores[best, label], 0.45)]
            if truths == 0 or len(kept) <= truths:
                continue
            p = scores[kept, label] / scores[kept, label].sum().detach()
            total = total - (p * p.log()).sum() / truths
            groups += 1
    assert groups > 2
    return 0.2 * total / groups


RULES = {"start": 0.1, "score": 0.03, "overlap": 0.45, "candidates": 200}


def test_prior_equals_the_loop_over_images_and_classes():
    net, context = step()
    term = SparseObjectPrior(0.2, **RULES)
    term.attach(SimpleNamespace(net=net, task="detection", add_loss_term=lambda *_: None))
    term.on = True
    value, expected = term(context), prior_by_hand(net, context)
    torch.testing.assert_close(value, expected)
    ours = torch.autograd.grad(value, context.logits.class_logits)[0]
    theirs = torch.autograd.grad(expected, context.logits.class_logits)[0]
    torch.testing.assert_close(ours, theirs)


def test_images_without_objects_have_no_prior():
    net, context = step()
    for target in context.targets:
        target["labels"] = target["labels"][:0]
    term = SparseObjectPrior(0.2, **RULES)
    term.attach(SimpleNamespace(net=net, task="detection", add_loss_term=lambda *_: None))
    term.on = True
    assert float(term(context)) == 0


def test_terms_are_off_before_their_start():
    term = InformationBottleneck(weight=0.5, start=0.25)
    context = StepContext(HeadOutputs(torch.zeros(1), torch.zeros(1)), [torch.ones(2)], [], [])
    trainer = SimpleNamespace(estimated_stepping_batches=100, global_step=24)
    term.on_train_start(trainer, None)
    values = []
    for trainer.global_step in (24, 25):
        term.on_train_batch_start(trainer, None, None, 0)
        values.append(float(term(context)))
    assert values == [0, 0.5]


@pytest.mark.parametrize("arguments", [{"weight": -1}, {"start": 1.0}, {"start": -0.1}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must not be negative"):
        InformationBottleneck(**{"weight": 0.1, "start": 0.1} | arguments)


def test_they_are_for_detection_only():
    module = SimpleNamespace(task="classification", add_loss_term=lambda *_: None)
    with pytest.raises(ValueError, match="is a loss term of detection"):
        InformationBottleneck(0.1, start=0.1).attach(module)
