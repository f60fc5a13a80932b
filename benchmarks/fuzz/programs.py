"""Saved programs: forged, read, and run on every engine that is here."""

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.utils import _pytree as pytree

from benchmarks.fuzz.containers import containers
from benchmarks.fuzz.mutate import alter, damaged
from fewbits.artifact import file as artifact
from fewbits.artifact import vectors
from fewbits.capture.capture import capture
from fewbits.engines.exactness import exactness
from fewbits.engines.executable import Executable
from fewbits.engines.processor import this_processor
from fewbits.export.described import described
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.storage import container
from fewbits.writers.onnx.program import onnx_bytes


@lru_cache(maxsize=1)
def programs() -> tuple[bytes, ...]:
    """Small programs of several kinds."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        nets = (
            (
                nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)),
                torch.rand(3, 1, 6, 6),
                "w8a8",
            ),
            (
                nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Sigmoid(), nn.Upsample(scale_factor=2)),
                torch.rand(3, 2, 4, 4),
                "w4a8",
            ),
            (nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3), nn.Softmax(-1)), torch.rand(4, 6), "w8"),
            (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.rand(4, 6), "dynamic-w8a8"),
        )
        for net, x, wanted in nets:
            model = fold(capture(net.eval(), x))
            found.append(artifact.to_bytes(lower(calibrate(model, plan(model, wanted), [x]))))
    return tuple(found)


_WORDS = (
    "int8",
    "uint8",
    "int4",
    "e4m3",
    "ternary",
    "table(-1,0,1)",
    "aten.relu.default",
    "aten.conv2d.default",
    [None, 4],
    [0],
    {"Conv": {}},
    {"FloatCall": {}},
    2**18 + 1,
    [0] * 3000,
)


def spoilt_program(_: bytes, rng: random.Random) -> tuple[bytes, bool]:
    return containers((artifact.PROGRAM, "fewbits.preparation"), _WORDS)(rng.choice(programs()), rng)


_FACTS = (artifact.PROGRAM, "fewbits.preparation", "fewbits.nodes", container.HASHES)


def plausible_program(_: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """A program with other weights, or another number, name or word in place of one, under right hashes: such as may
    be taken, and then runs."""
    held = container.parse(rng.choice(programs()))
    tensors = {name: np.array(tensor) for name, tensor in held.tensors.items()}
    names = [name for name in tensors if name not in _FACTS and tensors[name].size]
    if names and rng.random() < 0.4:
        tensor = tensors[rng.choice(names)]
        raw = tensor.reshape(-1).view(np.uint8)
        for _time in range(rng.choice((1, 4, 40))):
            raw[rng.randrange(raw.size)] = rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    else:
        document = json.loads(tensors[artifact.PROGRAM].tobytes())
        for _time in range(rng.choice((1, 1, 2))):
            alter(document, rng)
        tensors[artifact.PROGRAM] = np.frombuffer(container.to_json(document), np.uint8)
    return container.build(tensors, held.writer), True


def run_everywhere(path: Path) -> Any:
    """The program's codes for the test vectors' inputs; every engine gives the same, or refuses."""
    program = artifact.read(path).program
    given = {name: torch.from_numpy(array) for name, array in vectors.inputs(program).items()}
    wanted = leaves(Executable(program, "reference").codes(given))
    for name in ("torch", "native", "fastest"):
        got = leaves(Executable(program, name).codes(given))
        same = program.has_islands or all(map(torch.equal, wanted, got))
        assert same, f"{name} gives other codes"
    return wanted


def leaves(value: Any) -> list[torch.Tensor]:
    """The tensors in what a program gives."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


@lru_cache(maxsize=1)
def exported() -> bytes:
    """The first of the programs as ONNX, described as `fewbits export` does."""
    program = artifact.from_bytes(programs()[0], "a").program
    told = described(program, "integer", exactness(program, "any", this_processor()))
    model = onnx.load_from_string(onnx_bytes(program))
    onnx.helper.set_model_props(model, told)
    return model.SerializeToString()


def spoilt_onnx(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """Damaged, or with other metadata, a tensor that lies elsewhere, or the graph many times in itself."""
    if rng.random() < 0.5:
        return damaged(data, rng), True
    model = onnx.load_from_string(data)
    dice = rng.random()
    if dice < 0.6:
        item = rng.choice(model.metadata_props)
        text = rng.choice(("", "fewbits.", "fewbits.x", "x" * 5000, "\x1b[2J", "\n", "\u202e", item.key, "0"))
        if rng.random() < 0.5:
            item.key = text
        else:
            item.value = text
    elif dice < 0.7:
        del model.metadata_props[:]
    elif dice < 0.85:
        tensor = rng.choice(model.graph.initializer)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=rng.choice(("/etc/passwd", "../x", "", "x" * 4000)))
    else:
        node = model.graph.node.add(op_type="If")
        for _ in range(rng.choice((3, 60, 120))):
            attribute = node.attribute.add(name="a", type=onnx.AttributeProto.GRAPH)
            node = attribute.g.node.add(op_type="If")
    return model.SerializeToString(), True
