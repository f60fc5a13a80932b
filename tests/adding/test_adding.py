"""What docs/adding.md says an operator costs is enough: five files, and it goes through everything."""

from dataclasses import replace

import pytest
import torch
import toy_aten
import toy_form
import toy_kernel
import toy_record
import toy_rule
from torch import nn

import fewbits as fb
from fewbits.artifact.verify import verify
from fewbits.documents.operators import document
from fewbits.engines.torch import KERNELS
from fewbits.errors import LoweringError
from fewbits.graph import operators
from fewbits.lower.rules import RULES
from fewbits.program.examples import as_program
from fewbits.program.limits import limit_names
from fewbits.program.ops import RECORDS
from fewbits.program.profile import ONNXRUNTIME
from fewbits.quant import planner
from fewbits.report.energy import integer_work
from fewbits.testing import check_tables, differences
from fewbits.testing.random_networks import random_layers_network
from fewbits.writers.onnx import FORMS


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy operator in its tables, as if its five files were fewbits'."""
    monkeypatch.setattr(operators, "OPERATORS", (*operators.OPERATORS, toy_aten.ROW))
    monkeypatch.setattr(planner, "OPERATORS", operators.OPERATORS)
    for target in toy_aten.ROW.targets:
        monkeypatch.setitem(operators._BY_TARGET, target, toy_aten.ROW)
    for table, rows in ((RECORDS, toy_record.RECORDS), (RULES, toy_rule.RULES), (KERNELS, toy_kernel.KERNELS),
                        (FORMS, toy_form.FORMS)):
        for key, value in rows.items():
            monkeypatch.setitem(table, key, value)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.hypot(self.first(x), self.second(x)).mean((2, 3)))


@pytest.mark.usefixtures("added")
def test_a_toy_operator_goes_through_everything(tmp_path) -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(4, 3, 7, 7)
    assert not check_tables()
    model = fb.fold(fb.capture(net, x))
    sim = fb.calibrate(model, fb.plan(model, "w8a8"), [x])
    prog = fb.lower(sim)
    assert any(isinstance(node, toy_record.Hypotenuse) for node in prog.program.nodes)
    assert not differences(prog.program, {prog.program.inputs[0]: x.numpy()})
    assert float((prog(x) - net(x).detach()).abs().max()) < 0.1
    prog.save(tmp_path / "net.fewbits")
    again = fb.load(tmp_path / "net.fewbits")
    assert torch.equal(again(x), prog(x))
    assert all(replay.differing == 0 for replay in verify(tmp_path / "net.fewbits"))
    assert fb.export_onnx(prog, tmp_path / "net.onnx", [x])
    report = fb.report(prog, sim=sim, batches=[x])
    assert report.mismatches == 0
    (operation,) = (each for each in report.ledger.operations if each.op == "hypotenuse")
    assert operation.computed_as == "Hypotenuse"
    assert "hypot" in report.html()
    (work,) = (each for each in integer_work(prog.program) if each.name == operation.value)
    assert work.operations["multiply fp32"] == 5 * 4 * 5 * 5
    assert "`Hypotenuse`" in document()


@pytest.mark.usefixtures("added")
def test_a_profile_may_lack_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hypotenuse" in limit_names()
    torch.manual_seed(0)
    x = torch.randn(4, 3, 7, 7)
    model = fb.fold(fb.capture(Net().eval(), x))
    sim = fb.calibrate(model, fb.plan(model, "w8a8"), [x])
    with pytest.raises(LoweringError, match="has no definition of hypotenuse"):
        fb.lower(sim, replace(ONNXRUNTIME, lacks=("hypotenuse",)))


@pytest.mark.usefixtures("added")
def test_its_examples_and_random_networks_use_it() -> None:
    (example,) = RECORDS[toy_record.Hypotenuse].examples()
    assert not differences(*as_program(example))
    nets = (random_layers_network(seed) for seed in range(40))
    assert any("hypot" in str(fb.capture(net, x).graph) for net, x in nets)


@pytest.mark.parametrize(("table", "key", "told"), [
    (KERNELS, "Mul", "torch kernels (engines/torch): Mul is missing"),
    (FORMS, "Conv", "ONNX forms (writers/onnx): Conv is missing"),
    (RULES, "matmul", "lowering rules (lower): matmul is missing"),
    (RECORDS, "Mean", "records (program/ops): Mean is missing"),
])
def test_a_forgotten_entry_is_named(table, key, told, monkeypatch: pytest.MonkeyPatch) -> None:
    key = next(each for each in table if each == key or getattr(each, "__name__", "") == key)
    monkeypatch.delitem(table, key)
    assert told in check_tables()


def test_an_operator_that_no_record_computes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "OPERATORS", (*operators.OPERATORS, toy_aten.ROW))
    assert "the ledger: no record says that it computes hypotenuse" in check_tables()
