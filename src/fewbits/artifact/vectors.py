"""Test vectors: inputs that anybody can make again, and what the reference makes of them.

Inputs are not stored. The codes of an input are drawn from SHAKE-128 over "fewbits test vectors 1: <input
name>" in UTF-8, row-major: two bytes r each, least significant first, give low + floor(r · count / 2^16),
with count the number of codes from low to high. The program reads their numbers, float32. Stored are a hash
of every node's codes, so that a failure names its node, and the outputs' codes themselves while they are few.

A program with float islands is cut (program/islands.py), and each half has inputs of its own, a batch of 2 of each or,
where these do not go together because heads or windows are folded into some, what the program has in a batch of 2: what
enters an island from codes is drawn as those codes (sums among ±2^15), what has no codes is (r − 2^15) / 2^14. Of the
integers all is stored as above; of an island up to 256 evenly spaced numbers of each result, to be met within the
tolerance of float_calls.py: no two machines need round a float alike.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from fewbits.artifact.codec import Reader, Writer
from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.packing import pack, packed_bytes, unpack
from fewbits.program import reference
from fewbits.program.islands import float_half, integer_half
from fewbits.program.moving import moving_sizes
from fewbits.program.ops import Dequantize, Embedding, FloatCall, Quantize, Read, reads
from fewbits.program.program import Program
from fewbits.storage.container import HASH_BYTES, short_hash
from fewbits.storage.refusal import Refusal, quoted

BATCH = 2
NODES = "fewbits.nodes"
OUTPUT_BYTES = 8192  # of all stored outputs together: 1000 classes in 32 bits, twice, are 8000
INPUT_LIMIT = 2**26  # elements
SAMPLES = 256  # numbers kept of each result of an island


@dataclass(frozen=True, eq=False)
class Vectors:
    """What a program must give for `inputs(program)`, or its halves for theirs.

    hashes: 8 bytes for each node's codes, in running order; outputs: codes of those outputs that are stored; samples:
    float32 of each result of an island.
    """

    hashes: Mapping[str, bytes]
    outputs: Mapping[str, np.ndarray]
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)


def exact_part(program: Program) -> Program:
    """The part whose every code is hashed: all of it, or its integers where it has islands."""
    return integer_half(program) if program.has_islands else program


def inputs(program: Program, whole: Program | None = None) -> dict[str, np.ndarray]:
    """The test vectors' inputs, a batch of 2, by input name: float32, or row numbers of an embedding counted up.

    whole: what the program is a half of. Raises ProgramError for an input of more than 2^26 elements.
    """
    made, moving = {}, _moving(program, whole or program)
    for name in program.inputs:
        shape = tuple(moving[name] if size is None else size for size in program.values[name].shape)
        if prod(shape) > INPUT_LIMIT:
            raise ProgramError(f"input {name!r} has {prod(shape)} elements in a batch of {BATCH}, "
                               f"and test vectors have at most {INPUT_LIMIT}: make it smaller")
        rows = _rows(program, name)
        if rows:
            made[name] = (np.arange(prod(shape), dtype=np.int64) % min(rows)).reshape(shape)
            continue
        dtype = program.values[name].dtype
        if dtype != "float32":
            made[name] = _tokens(name, shape, dtype)
            continue
        encoding = _input_encoding(program, whole or program, name)
        if encoding is None and not program.readers(name):
            made[name] = np.zeros(shape, np.float32)
            continue
        drawn = _drawn(name, prod(shape))
        if encoding is None:
            made[name] = ((drawn - 2**15) / 2**14).astype(np.float32).reshape(shape)
            continue
        low, high = max(encoding.format.low, -(2**15)), min(encoding.format.high, 2**15 - 1)
        codes = low + (drawn * (high - low + 1) >> 16)
        made[name] = encoding.decode(codes.astype(encoding.format.dtype).reshape(shape))
    return made


def _moving(program: Program, whole: Program) -> Mapping[str, int]:
    """The moving size of each input of a program that may be half of another."""
    plain = dict.fromkeys(program.inputs, BATCH)
    if program is whole or moving_sizes(program, plain) is not None:
        return plain
    return plain | (moving_sizes(whole, dict.fromkeys(whole.inputs, BATCH)) or {})


def _drawn(name: str, count: int) -> np.ndarray:
    """Numbers from 0 to 2^16 - 1, the same for the same name."""
    seed = f"fewbits test vectors 1: {name}".encode("utf-8", "surrogatepass")
    return np.frombuffer(hashlib.shake_128(seed).digest(2 * count), "<u2").astype(np.int64)


def _tokens(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Of a mask, or of numbers that no table tells the range of: 0 and 1, three 1 for each 0; of bytes all of them."""
    drawn = _drawn(name, prod(shape)).reshape(shape)
    return (drawn >> 8 if dtype == "uint8" else drawn >= 2**14).astype(np.dtype(dtype))


def expected(program: Program) -> Vectors:
    """Runs the reference on the test vectors. Raises ProgramError when its codes have other shapes."""
    exact = exact_part(program)
    kept, hashes, outputs = set(_stored(exact)), {}, {}
    for name, array in reference.walk(exact, inputs(exact, program)):
        # Inside the graph a size that moves with the batch may be a multiple of it (heads folded into the batch).
        shape = program.values[name].shape
        fits = array.shape == batch_shape(program, name) if program.returns(name) else (
            len(array.shape) == len(shape) and all(s in (None, t) for s, t in zip(shape, array.shape, strict=True)))
        if not fits:
            raise ProgramError(f"the codes of {name!r} have shape {list(array.shape)}, not the program's "
                               f"{list(batch_shape(program, name))}: mend its value")
        hashes[name] = hash_codes(array)
        if name in kept:
            outputs[name] = array
    samples = {}
    if program.has_islands:
        islands = float_half(program)
        wanted = results(islands)
        found = {name: sample(array) for name, array in reference.walk(islands, inputs(islands, program))
                 if name in wanted}
        samples = {name: found[name] for name in wanted}
    return Vectors(hashes, {name: outputs[name] for name in _stored(exact)}, samples)


def run_all(program: Program, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference's values of every node."""
    return reference.run(program, given, program.written)


def results(islands: Program) -> tuple[str, ...]:
    """The float values that islands give away: what a quantizer reads, or the model returns."""
    read = {name for node in islands.nodes if not islands.is_float(node.name) for name in reads(node)}
    return tuple(name for name in islands.written
                 if islands.is_float(name) and (name in read or islands.returns(name)))


def sample(array: np.ndarray) -> np.ndarray:
    """At most 256 numbers, evenly spaced in row-major order: float32 [n]."""
    flat = array.reshape(-1)
    count = min(flat.size, SAMPLES)
    return np.ascontiguousarray(flat[np.arange(count) * flat.size // max(count, 1)])


def hash_codes(codes: np.ndarray) -> bytes:
    """8 bytes of BLAKE2b over "2x3x8x8:" and the codes, row-major, each least significant byte first."""
    shape = "x".join(map(str, codes.shape))
    ordered = np.ascontiguousarray(codes.astype(codes.dtype.newbyteorder("<"), copy=False))
    return short_hash(f"{shape}:".encode(), ordered.reshape(-1).view(np.uint8).data)


def put(vectors: Vectors, program: Program, writer: Writer) -> None:
    """Hands the vectors to the writer, behind the program's own tensors."""
    for name, codes in vectors.outputs.items():
        writer.put((_output(name),), pack(codes, program.encoding(name).format))
    for name, numbers in vectors.samples.items():
        writer.put((_sample(name),), numbers)
    hashes = b"".join(vectors.hashes.values())
    writer.tensors[NODES] = np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)


def take(program: Program, reader: Reader, hashes: np.ndarray) -> Vectors:
    """Inverse of `put`. hashes: the tensor `NODES`. Raises Refusal when sizes disagree with the program."""
    exact = exact_part(program)
    if hashes.dtype != np.uint8 or hashes.shape != (len(exact.written), HASH_BYTES):
        raise Refusal("does not have one test hash for each value")
    outputs = {}
    for name in _stored(exact):
        packed, shape = reader.take((_output(name),)), batch_shape(program, name)
        format = program.encoding(name).format
        if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != packed_bytes(prod(shape), format):
            raise Refusal(f"does not hold the expected codes of {quoted(name)} in their shape")
        outputs[name] = unpack(packed, format, shape)
    samples = {}
    for name in results(float_half(program)) if program.has_islands else ():
        samples[name] = reader.take((_sample(name),))
        if samples[name].dtype != np.float32 or samples[name].ndim != 1 or samples[name].size > SAMPLES:
            raise Refusal(f"does not hold the expected numbers of {quoted(name)}")
    return Vectors({name: row.tobytes() for name, row in zip(exact.written, hashes, strict=True)}, outputs, samples)


def batch_shape(program: Program, name: str) -> tuple[int, ...]:
    """Shape of a value in the test vectors."""
    return tuple(BATCH if size is None else size for size in program.values[name].shape)


def _stored(program: Program) -> Iterator[str]:
    """Outputs whose codes are stored: those that still fit, in order. The hashes cover the others."""
    left = OUTPUT_BYTES
    for name in program.outputs:
        if program.values[name].encoding is None:  # decoded codes, or numbers that are none
            continue
        size = packed_bytes(prod(batch_shape(program, name)), program.encoding(name).format)
        if size <= left:
            left -= size
            yield name


def _rows(program: Program, name: str) -> list[int]:
    """How many rows the tables have that an input numbers."""
    rows = []
    for node in program.readers(name):
        if isinstance(node, Embedding):
            rows.append(len(node.table.codes))
        elif isinstance(node, FloatCall) and node.arguments.get("indices") == Read(name):
            table = node.arguments["weight"]
            assert isinstance(table, Read), "the table of an embedding is a value"
            rows.append(program.values[table.value].shape[0] or 1)
    return rows


def _input_encoding(program: Program, whole: Program, name: str) -> Encoding | None:
    """Of the codes that an input becomes, or that it was decoded from."""
    codes = next((node for node in program.readers(name) if isinstance(node, Quantize)), None)
    if codes is not None:
        return program.encoding(codes.name)
    decoding = whole.by_name.get(name)
    return whole.encoding(decoding.input) if isinstance(decoding, Dequantize) else None


def _output(name: str) -> str:
    return f"fewbits.output.{name}"


def _sample(name: str) -> str:
    return f"fewbits.island.{name}"
