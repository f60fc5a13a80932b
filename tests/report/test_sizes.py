"""Bytes of float files as safetensors writes them, and of integers as they add up."""

import pytest
import torch
from report_cases import Case, Everything, Residual
from safetensors.torch import save
from torch import nn

from fewbits.report.ledger import ledger
from fewbits.report.sizes import float_file_bytes, size_items, stored_items


@pytest.mark.parametrize("build", [Residual, Everything, lambda: nn.Linear(7, 13)])
def test_float_bytes_are_those_of_a_safetensors_file(build: type[nn.Module]) -> None:
    model = build()
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    assert float_file_bytes(model) == len(save(tensors))


def test_a_tied_weight_counts_once() -> None:
    first, second, other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    tied, untied = (float_file_bytes(nn.Sequential(first, layer)) for layer in (second, other))
    assert tied <= untied - 4 * 4 * 4


def test_stored_items_add_up_to_the_ledger_and_the_grids(residual: Case) -> None:
    entries = ledger(residual.program, residual.simulation.plan, residual.simulation.model.graph)
    items = stored_items(entries)
    assert sum(item.bytes for item in items) == entries.bytes + 8 * 4
    assert {item.part for item in items} == {"weight", "weight scales", "bias", "activation encodings"}


def test_items_of_a_file_are_taken_as_they_are() -> None:
    assert [item.bytes for item in size_items([("conv", "weight", 12), ("", "header", 30)])] == [12, 30]


def test_buffers_count_too() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(10, dtype=torch.int64))

    assert float_file_bytes(Buffered()) == len(save({"table": torch.zeros(10, dtype=torch.int64)}))
