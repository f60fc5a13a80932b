"""The ledger accounts for everything, and says so only where that is true."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from report_cases import Case, Everything, Residual, Rows, lowered, made
from torch import nn

from fewbits.capture.capture import capture
from fewbits.errors import ProgramError
from fewbits.fold.fold import fold
from fewbits.graph.graph import Graph
from fewbits.graph.operators import OPERATORS
from fewbits.lower.lower import lower
from fewbits.program.ops import Conv, Linear, accumulator_bound
from fewbits.program.program import Program
from fewbits.program.value import Value
from fewbits.quant.calibrate import calibrate
from fewbits.quant.plan import Plan, Treatment
from fewbits.quant.planner import plan
from fewbits.report.ledger import InputTreatment, Ledger, ledger, reliances
from fewbits.report.page import _EXPLAINED
from fewbits.testing import random_network


def of(case: Case) -> Ledger:
    return ledger(case.program, case.simulation.plan, case.simulation.model.graph)


def test_the_test_network_holds_every_operator(everything: Case) -> None:
    used = {step.op for step in everything.simulation.plan.steps.values()}
    assert {row.name for row in OPERATORS} - used == {
        "batch_norm", "embedding",
        "masked_softmax", "insert_zeros", "quotient", "adaptive_max_pool",
        "index_select", "choose", "enter", "rms_norm",  # made by folding
        "recurrence", "step", "state"}  # tests/fold/test_recurrent.py


def test_row_numbers_and_tables_are_accounted_for() -> None:
    torch.manual_seed(0)
    model = fold(capture(Rows().eval(), torch.randint(0, 7, (2, 3))))
    simulation = calibrate(model, plan(model, "w8a8"), [torch.randint(0, 7, (4, 3))])
    entries = ledger(lower(simulation), simulation.plan, model.graph)
    kinds = {entry.name: entry.kind for entry in entries.tensors}
    assert kinds["x"] == "row numbers"
    assert kinds["words.table"] == "table"
    assert entries.operations[0].treatment is InputTreatment.ROWS
    assert next(entry for entry in entries.tensors if entry.name == "words.table").code_bytes == 35


def test_every_node_value_and_parameter_is_in_it_once(everything: Case) -> None:
    entries, program = of(everything), everything.program
    graph = everything.simulation.model.graph
    assert [entry.node for entry in entries.operations] == list(graph.names())
    stored = [name for name, site in everything.simulation.plan.sites.items()
              if site.kind in ("weight", "bias", "constant")]
    names = [entry.name for entry in entries.tensors]
    tables = [entry.name for entry in entries.tensors if entry.kind == "table"]
    assert sorted(names) == sorted({*program.values, *stored, *tables})
    assert all(entry.value in program.values for entry in entries.operations if entry.value)
    assert all(entry.encoding and entry.because for entry in entries.tensors)
    assert set(entries.counts) == {InputTreatment.QUANTIZED, Treatment.INTEGER, Treatment.FUSED, Treatment.PASSED,
                                   Treatment.GONE, Treatment.SIZE}


def test_source_lines_are_the_users(everything: Case) -> None:
    sources = {entry.source.split(":")[0] for entry in of(everything).operations if entry.op == "conv"}
    assert sources == {"report_cases.py"}


def test_sums_have_their_proved_bits_products_and_bytes(residual: Case) -> None:
    entries = of(residual)
    nodes = {node.name: node for node in residual.program.nodes}
    for entry in entries.accumulations:
        node = nodes[entry.node]
        assert isinstance(node, Conv | Linear)
        assert entry.bits == accumulator_bound(residual.program, node).bits <= entry.available
    assert [entry.macs for entry in entries.accumulations] == [36 * 6 * 2 * 9, 36 * 6 * 6 * 9, 54 * 5]
    assert [entry.bytes for entry in entries.accumulations] == [
        108 + 6 * 4 + 6 * 4, 324 + 6 * 4 + 6 * 4, 270 + 5 * 4 + 5 * 4]
    assert entries.bytes == sum(entry.bytes for entry in entries.accumulations)
    assert entries.macs == 36 * 6 * 2 * 9 + 36 * 6 * 6 * 9 + 54 * 5


def test_a_weight_used_twice_is_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.relu(self.layer(x)))

    entries = of(lowered(Tied(), torch.randn(3, 4, generator=torch.Generator().manual_seed(0))))
    assert [entry.code_bytes for entry in entries.tensors if entry.kind == "weight"] == [16]
    assert len(entries.accumulations) == 2


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_are_accounted_for(seed: int) -> None:
    case = lowered(*random_network(seed))
    assert len(of(case).operations) == len(list(case.simulation.model.graph.names()))


def test_a_node_without_an_entry_is_an_error(everything: Case) -> None:
    program, plan, graph = everything.program, everything.simulation.plan, everything.simulation.model.graph
    steps = dict(plan.steps)
    del steps["conv"]
    with pytest.raises(ProgramError, match="node 'conv' is missing from the plan"):
        ledger(program, Plan(plan.sites, steps), graph)
    shorter = Graph(graph.inputs, graph.nodes[:-1], graph.structure, graph.style)
    with pytest.raises(ProgramError, match="is nowhere in the model"):
        ledger(program, plan, shorter)


def test_a_value_that_nothing_explains_is_an_error(residual: Case) -> None:
    program = residual.program
    first = next(node for node in program.nodes if isinstance(node, Conv))
    stray = replace(first, name="stray")
    values = {**program.values, "stray": program.values[first.name]}
    with pytest.raises(ProgramError, match="value 'stray' is missing from the ledger"):
        ledger(Program(program.profile, program.inputs, (*program.nodes, stray), values, program.structure),
               residual.simulation.plan, residual.simulation.model.graph)


def test_a_program_of_another_model_is_an_error(residual: Case, everything: Case) -> None:
    with pytest.raises(ProgramError, match="from one model"):
        ledger(everything.program, residual.simulation.plan, residual.simulation.model.graph)


def test_equality_relies_on_what_the_program_uses(residual: Case) -> None:
    vnni, = reliances(residual.program)  # no two codes of its sum come out otherwise without FMA
    assert "VNNI" in vnni.on
    assert len(vnni.nodes) == 3


def test_equality_relies_on_nothing_where_the_profile_avoids_it() -> None:
    assert reliances(lowered(*made(Residual, 4, 2, 6, 6), "w7a8", "onnxruntime-portable").program) == ()


def test_small_weights_need_no_vnni_and_broadcast_sums_no_fma() -> None:
    assert reliances(lowered(*made(Everything, 4, 4, 8, 8), recipe="w7a8").program) == ()


def test_a_reliance_on_an_unknown_feature_is_kept(residual: Case) -> None:
    profile = replace(residual.program.profile, relies_on=("SVE2",))
    program = replace(residual.program, profile=profile)
    assert [(reliance.on, reliance.nodes) for reliance in reliances(program)] == [("SVE2", ())]


def test_values_of_a_program_are_frozen_text(residual: Case) -> None:
    entry = of(residual).tensors[0]
    assert isinstance(entry.encoding, str)
    assert isinstance(residual.program.values["x"], Value)
    assert not any(isinstance(value, np.ndarray) for value in vars(entry).values())


def test_the_page_explains_every_treatment():
    assert set(_EXPLAINED) == {*Treatment, *InputTreatment}


class Masked(nn.Module):
    """Positions, a mask from token numbers, and a mask that becomes a number: int64 [N, 5] → [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(7, 4), nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(keep.cumsum(1))
        seen = (x @ x.transpose(1, 2) + (1 - keep[:, None].float()) * -1e4).softmax(-1) @ x
        return self.head((torch.where(ids[..., None] > 0, seen, 0.5) * keep[..., None]).mean(1))


@pytest.mark.parametrize("recipe", ["w8a8", "w8", "dynamic-w8a8"])
def test_tokens_and_masks_are_accounted_for(recipe: str) -> None:
    torch.manual_seed(0)
    ids, keep = torch.randint(0, 7, (4, 5)), (torch.rand(4, 5) > 0.3).long()
    model = fold(capture(Masked().eval(), (ids, keep)))
    simulation = calibrate(model, plan(model, recipe), [(ids, keep)])
    entries = ledger(lower(simulation), simulation.plan, model.graph)
    kinds = {entry.name: entry.kind for entry in entries.tensors}
    assert kinds["keep"] == kinds["cumsum"] == "as it is" and entries.counts[Treatment.EXACT] >= 5
