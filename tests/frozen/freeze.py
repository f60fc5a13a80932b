"""Adds programs to the frozen ones. `python tests/frozen/freeze.py`, from the root of the repository.

A frozen program was lowered by the fewbits of its day and is never made again: its file, the SHA-256 of its ONNX bytes
and those of all its values' codes say what later versions must still read, write and compute. So this script writes
only what is not there. To freeze something new, add a line to `_programs` under a name that no other has.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewbits.artifact import vectors
from fewbits.artifact.file import from_bytes, read, to_bytes
from fewbits.capture.capture import capture
from fewbits.errors import LoweringError, VerificationError
from fewbits.export.verified import exported_bytes
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program.profile import PROFILES, profile
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.testing.random_networks import random_network
from fewbits.testing.random_programs import random_program
from fewbits.writers.onnx.program import onnx_bytes

FOLDER = Path(__file__).parent
PROGRAMS, ONNX, CODES = FOLDER / "programs", FOLDER / "onnx.json", FOLDER / "codes.json"
EXPORTED = FOLDER / "exported.json"
FORMS = ("integer", "qdq")
_LARGEST = 24_000  # bytes of a file


def onnx_hash(program: Program, form: str) -> str:
    """SHA-256 of the ONNX bytes of a program, plainly written, or the words it is refused with."""
    return _hash_of(lambda: onnx_bytes(program, form))


def export_hash(program: Program, form: str) -> str:
    """The same of the file that is exported for any processor."""
    return _hash_of(lambda: exported_bytes(program, form, "any"))


def _hash_of(write: Callable[[], bytes]) -> str:
    try:
        return hashlib.sha256(write()).hexdigest()
    except VerificationError as refused:
        return f"refused: {refused}"


def code_hashes(program: Program) -> dict[str, str]:
    """SHA-256 of what the reference gives for the test vectors' inputs, by value: of its integers, where it has
    islands, decoded numbers among them."""
    exact = vectors.exact_part(program)
    values = vectors.run_all(exact, vectors.inputs(exact, program))
    return {name: _hash(array) for name, array in values.items()}


def _hash(array: np.ndarray) -> str:
    """Of type, shape, and the numbers, row-major, least significant byte first."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{array.dtype.name} {list(array.shape)} ".encode() + little.tobytes()).hexdigest()


# ------------------------------------------------------------------------------------------- what was frozen


@dataclass(frozen=True)
class _Small:
    """The first random networks from a seed on whose program exists and is a small file."""

    recipe: str | Recipe
    profile: str
    seed: int

    def programs(self) -> Iterator[Program]:
        for seed in range(self.seed, self.seed + 40):
            net, example = random_network(seed)
            model = fold(capture(net, example))
            try:
                yield lower(calibrate(model, plan(model, self.recipe), [example / 1.3]), self.profile)
            except LoweringError:
                continue


def _first(made: Iterator[Program], place: int) -> Program:
    small = (program for program in made if len(to_bytes(program)) <= _LARGEST)
    for _ in range(place):
        next(small)
    return next(small)


def _random(seed: int) -> Iterator[Program]:
    while True:
        yield random_program(seed).program
        seed += 8  # the next under the same recipe and profile


def _by_hand(name: str) -> Program:
    sys.path.insert(0, str(FOLDER.parent / "artifact"))
    import artifact_programs

    return getattr(artifact_programs, name)()


class _Attention(nn.Module):
    """What the operators of a transformer become, and a float island of each kind of call."""

    def __init__(self):
        super().__init__()
        self.rows, self.mix = nn.Embedding(11, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens):
        x = self.mix(self.rows(tokens))
        return self.head(x), (self.head(x) / 2).log_softmax(-1)


class _Masked(nn.Module):
    """Token numbers, positions and masks, an RMS norm, and a choice."""

    def __init__(self):
        super().__init__()
        self.rows, self.places, self.head = nn.Embedding(11, 8), nn.Embedding(8, 8), nn.Linear(8, 11)
        self.norm = nn.RMSNorm(8)

    def forward(self, tokens):
        keep = (tokens != 0)[:, None, None, :] & torch.ones(6, 6).tril().bool()
        x = self.rows(tokens) + self.places((tokens != 0).cumsum(1))
        q = self.norm(x).unflatten(-1, (2, 4)).transpose(1, 2)
        scores = (q @ q.transpose(-1, -2)).masked_fill(~keep, -1e9)
        y = (scores.softmax(-1) @ q).transpose(1, 2).flatten(2) * (tokens[..., None] > 1).float()
        return self.head(torch.where(keep[:, 0, :, :1], y, 0.25))


class _Picture(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.wise = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2)
        self.mid, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x):
        y = self.wise(self.conv(x).relu()).flatten(2)
        return self.head((self.mid(y) + 1).relu())


class _Sequence(nn.Module):
    """Steps of any number, both ways, outputs and a state left behind."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = nn.LSTM(8, 5, batch_first=True, bidirectional=True), nn.Linear(10, 3)

    def forward(self, x):
        outputs, (_, c) = self.cells(x)
        return self.head(outputs), c[0]


def _network(net: type[nn.Module], recipe: str | Recipe) -> Program:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = net().eval()
        shape = {_Picture: (3, 2, 8, 8), _Sequence: (3, 6, 8)}.get(net)
        example = torch.randint(0, 11, (3, 6)) if shape is None else torch.randn(*shape)
    model = fold(capture(made, example))
    return lower(calibrate(model, plan(model, recipe), [example]))


def _left_in_float(**rule: object) -> Recipe:
    return Recipe.model_validate({"version": 1, "weights": {"format": "int8", "block": "channel"},
                                  "activations": {"format": "uint8"}, "rules": [rule]})


def _programs() -> Iterator[tuple[str, Callable[[], Program]]]:
    """Names, and how each program is made."""
    for name in ("linear", "every_node", "one_bit"):
        yield name, partial(_by_hand, name)
    for seed in range(8):
        for place in range(3):
            yield f"random-{seed}-{place}", lambda seed=seed, place=place: _first(_random(seed), place)
    for name in (*PROFILES, "onnxruntime/sums16-split", "onnxruntime/sums24", "litert/sums24"):
        small = _Small(profile(name).recipe, name, 300)
        for place in range(2):
            yield (f"profile-{name.replace('/', '-')}-{place}",
                   lambda small=small, place=place: _first(small.programs(), place))
    for recipe in ("w8a8", "w8", "w4a8"):
        yield f"attention-{recipe}", partial(_network, _Attention, recipe)
    for recipe in ("w8a8", "w8", "w4a8", "dynamic-w8a8"):
        yield f"picture-{recipe}", partial(_network, _Picture, recipe)
    yield "picture-kept", partial(_network, _Picture, _left_in_float(module="mid", keep_float=True))
    yield "picture-float-activations", partial(_network, _Picture, _left_in_float(op="conv", activations="float"))
    yield "picture-float-weights", partial(_network, _Picture, _left_in_float(module="head", weights="float"))
    for recipe in ("w8a8", "w8"):
        yield f"masked-{recipe}", partial(_network, _Masked, recipe)
    for recipe in ("w8a8", "w8", "dynamic-w8a8"):
        yield f"sequence-{recipe}", partial(_network, _Sequence, recipe)
    yield "attention-kept", partial(_network, _Attention, _left_in_float(op="layer_norm", keep_float=True))


def _read(file: Path) -> dict:
    return json.loads(file.read_text()) if file.exists() else {}


def main() -> None:
    PROGRAMS.mkdir(exist_ok=True)
    onnx, codes, exported = _read(ONNX), _read(CODES), _read(EXPORTED)
    for name, make in _programs():
        file = PROGRAMS / f"{name}.fewbits"
        if file.exists():
            continue
        data = to_bytes(make())
        program = from_bytes(data, name).program
        onnx[name] = {form: onnx_hash(program, form) for form in FORMS}
        codes[name] = code_hashes(program)
        file.write_bytes(data)
        print(f"{name}: {len(data)} bytes, {len(program.nodes)} nodes")
    for name in sorted(file.stem for file in PROGRAMS.glob("*.fewbits")):
        if name not in exported:
            program = read(PROGRAMS / f"{name}.fewbits").program
            exported[name] = {form: export_hash(program, form) for form in FORMS}
    for known, place in ((onnx, ONNX), (codes, CODES), (exported, EXPORTED)):
        place.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
