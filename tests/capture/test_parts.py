"""Networks by parts: a detector whole says how, and its parts go the whole way while its own Python chooses boxes."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import fewbits as fb
from fewbits.capture.capture import capture
from fewbits.capture.whole import Whole, capture_parts
from fewbits.errors import CaptureError, DataError, UnsupportedError


class Detector(nn.Module):
    """Boxes and scores at two scales, and a choice among them. The head gets a list, and a number beside it."""

    def __init__(self, choice: str):
        super().__init__()
        self.choice = choice
        self.backbone = Pyramid()
        self.head = Head()

    def forward(self, x):
        boxes, scores = self.head(list(self.backbone(x).values()), scale=2.0)
        return getattr(self, self.choice)(boxes, scores)

    def suppressed(self, boxes, scores):
        """Greedy suppression: what data decides cannot be a graph."""
        kept = []
        for box, score in zip(boxes, scores, strict=True):
            order, chosen = score.argsort(descending=True), []
            while order.numel() > 0:
                chosen.append(box[order[0]])
                order = order[(box[order] - box[order[0]]).abs().sum(-1) > 1.0]
            kept.append(torch.stack(chosen))
        return kept

    def best(self, boxes, scores):
        top, at = scores.topk(3, dim=1)
        return {"boxes": boxes.gather(1, at[..., None].expand(-1, -1, 4)), "scores": top}

    def confident(self, boxes, scores):
        return boxes[scores > 0.0]

    def counted(self, boxes, scores):
        return boxes.flatten(0, 1)[:int((scores > 0.0).sum())]

    def there(self, boxes, scores):
        return [box[score.gt(0.0).nonzero().squeeze(1)] for box, score in zip(boxes, scores, strict=True)]


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())

    def forward(self, x):
        wide = self.first(x)
        return {"wide": wide, "deep": self.second(wide)}


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower = nn.Conv2d(6, 5, 1)

    def forward(self, maps, scale):
        found = torch.cat([self.tower(each).flatten(2) for each in maps], 2).transpose(1, 2)
        return found[..., :4] * scale, found[..., 4]


CHOICES = ("suppressed", "best", "confident", "counted", "there")
PARTS = ["backbone", "head"]


def detector(choice: str = "suppressed") -> tuple[Detector, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Detector(choice).eval(), torch.randn(4, 3, 16, 16)


def quantized(whole: Whole, batches: list[torch.Tensor]) -> dict[str, fb.QuantizedModel]:
    made = {}
    for name, part in whole.parts.items():
        part = fb.fold(part)
        made[name] = fb.lower(fb.calibrate(part, fb.plan(part, "w8a8"), whole.batches(name, batches)))
    return made


@pytest.mark.parametrize("choice", CHOICES)
def test_a_whole_detector_says_how_to_go_by_parts(choice, capfd):
    net, x = detector(choice)
    with pytest.raises((CaptureError, UnsupportedError), match=r'parts=\["backbone", "head"\]\)'):
        fb.plan(fb.fold(fb.capture(net, x)), "w8a8")
    assert capfd.readouterr().err == "", "the exporter prints nothing of its own"
    fb.capture(net, x, parts=PARTS)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_whole_runs_on_quantized_parts(choice):
    net, x = detector(choice)
    whole = fb.capture(net, x, parts=PARTS)
    programs = quantized(whole, [x])
    maps = programs["backbone"](x)
    boxes, scores = programs["head"](maps["wide"], maps["deep"])
    expected = getattr(net, choice)(boxes, scores)
    actual = whole.replaced(programs)(x)
    for one, other in zip(tree_leaves(expected), tree_leaves(actual), strict=True):
        assert torch.equal(one, other)
    real_boxes, real_scores = net.head(list(net.backbone(x).values()), scale=2.0)
    for real, ours in ((real_boxes, boxes), (real_scores, scores)):
        assert 10 * torch.log10(real.square().sum() / (real - ours).square().sum()) > 30


def test_one_part_alone_may_be_replaced_and_the_users_network_is_left_alone():
    net, x = detector()
    net.train()
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    whole = fb.capture(net, x, parts=["backbone"])
    programs = quantized(whole, [x])
    mixed = whole.replaced(programs)
    for tensor in mixed.parameters():
        tensor.data.zero_()
    assert mixed(x)[0].shape[1] == 4
    assert {name for name, _ in mixed.named_parameters()} == {"head.tower.weight", "head.tower.bias"}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_simulation_in_a_whole_learns():
    net, x = detector()
    whole = fb.capture(net, x, parts=["head"])
    part = fb.fold(whole.parts["head"])
    simulation = fb.calibrate(part, fb.plan(part, "w8a8"), whole.batches("head", [x]))
    mixed = whole.replaced({"head": simulation})
    sum(boxes.sum() for boxes in mixed(x)).backward()
    assert all(tensor.grad is not None for tensor in simulation.parameters())


def test_a_part_that_is_called_twice_gives_two_batches():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(self.layer(x).relu())

    net, x = Twice().eval(), torch.randn(2, 3)
    whole = fb.capture(net, x, parts=["layer"])
    first, second = whole.batches("layer", [x])
    assert torch.equal(first, x) and torch.equal(second, net.layer(x).relu())
    assert len(list(whole.batches("layer", [[x, None], [x]], lambda pair: pair[0]))) == 4
    assert torch.equal(whole.replaced({"layer": whole.parts["layer"]})(x), net(x))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.many = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.many(self.used(x)) + self.many(x[:, :1])


@pytest.mark.parametrize(("parts", "sentence"), [
    (["neck"], "no submodule 'neck': its own are used, unused, many"),
    ([], "parts is a list"),
    ("used", "parts is a list"),
    (["used", "used"], "name each module once"),
    (["unused"], "'unused' is not called"),
    (["many"], "'many' is called 2 times with arguments of different shapes"),
])
def test_parts_that_cannot_be(parts, sentence):
    with pytest.raises(CaptureError, match=sentence):
        capture_parts(Several().eval(), torch.randn(2, 4), parts)


def test_nested_parts_and_parts_that_fail_are_named():
    net, x = detector()
    with pytest.raises(CaptureError, match=r"part 'head.tower' is captured with 'head' already"):
        fb.capture(net, x, parts=["head", "head.tower"])
    with pytest.raises(CaptureError, match=r"part 'head.tower' is called 2 times"):
        fb.capture(net, x, parts=["head.tower"])
    net.head.tower.weight.data[0, 0] = torch.nan
    with pytest.raises(CaptureError, match=r"part 'head': weight 'tower.weight' holds NaN"):
        fb.capture(net, x, parts=["head"])


def test_other_sizes_and_other_names_are_refused():
    net, x = detector()
    whole = fb.capture(net, x, parts=PARTS)
    mixed = whole.replaced(dict(whole.parts))
    assert all(torch.equal(a, b) for a, b in zip(mixed(x), net(x), strict=True))
    assert len(mixed(x[:1])) == 1, "any batch"
    with pytest.raises(DataError, match=r"part 'backbone' is called with \[4, 3, 8, 8\]"):
        mixed(x[..., :8, :8])
    with pytest.raises(CaptureError, match="no part is called 'neck': choose among backbone, head"):
        whole.replaced({"neck": nn.Identity()})
    with pytest.raises(CaptureError, match="no part is called"):
        whole.batches("neck", [x])
    with pytest.raises(DataError, match="batch 1 is a str"):
        list(whole.batches("head", [x, "x"]))


def test_a_failure_that_parts_do_not_mend_names_none():
    class Branching(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(CaptureError, match="depends on data") as caught:
        capture(Branching(), torch.randn(2, 3))
    assert "by parts" not in str(caught.value)
