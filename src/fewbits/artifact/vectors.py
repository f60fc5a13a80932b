"""Test vectors: inputs that anybody can make again, and what the reference makes of them.

Inputs are not stored. The codes of an input are drawn from SHAKE-128 over "fewbits test vectors 1: <input
name>" in UTF-8, row-major: two bytes r each, least significant first, give low + floor(r · count / 2^16),
with count the number of codes from low to high. The program reads their numbers, float32. Stored are a hash
of every node's codes, so that a failure names its node, and the outputs' codes themselves while they are few.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from fewbits.artifact.codec import Reader, Writer
from fewbits.artifact.container import HASH_BYTES, short_hash
from fewbits.artifact.refusal import Refusal, quoted
from fewbits.errors import ProgramError
from fewbits.numerics.encoding import Encoding
from fewbits.numerics.packing import pack, packed_bytes, unpack
from fewbits.program import reference
from fewbits.program.nodes import Embedding, Quantize
from fewbits.program.program import Program

BATCH = 2
NODES = "fewbits.nodes"
OUTPUT_BYTES = 8192  # of all stored outputs together: 1000 classes in 32 bits, twice, are 8000
INPUT_LIMIT = 2**26  # elements


@dataclass(frozen=True, eq=False)
class Vectors:
    """What a program must give for `inputs(program)`.

    hashes: 8 bytes for each node's codes, in running order; outputs: codes of those outputs that are stored.
    """

    hashes: Mapping[str, bytes]
    outputs: Mapping[str, np.ndarray]


def inputs(program: Program) -> dict[str, np.ndarray]:
    """The test vectors' inputs, a batch of 2, by input name: float32, or row numbers of an embedding counted up.

    Raises ProgramError for an input of more than 2^26 elements.
    """
    made = {}
    for name in program.inputs:
        shape = batch_shape(program, name)
        if prod(shape) > INPUT_LIMIT:
            raise ProgramError(f"input {name!r} has {prod(shape)} elements in a batch of {BATCH}, "
                               f"and test vectors have at most {INPUT_LIMIT}: make it smaller")
        rows = [len(node.table.codes) for node in program.nodes if isinstance(node, Embedding) and node.input == name]
        if rows:
            made[name] = (np.arange(prod(shape), dtype=np.int64) % min(rows)).reshape(shape)
            continue
        encoding = _input_encoding(program, name)
        if encoding is None:  # nothing reads it
            made[name] = np.zeros(shape, np.float32)
            continue
        seed = f"fewbits test vectors 1: {name}".encode("utf-8", "surrogatepass")
        drawn = np.frombuffer(hashlib.shake_128(seed).digest(2 * prod(shape)), "<u2").astype(np.int64)
        low, high = encoding.format.low, encoding.format.high
        codes = low + (drawn * (high - low + 1) >> 16)
        made[name] = encoding.decode(codes.astype(encoding.format.dtype).reshape(shape))
    return made


def expected(program: Program) -> Vectors:
    """Runs the reference on the test vectors. Raises ProgramError when its codes have other shapes."""
    codes = reference.run(program, inputs(program), [node.name for node in program.nodes])
    for name, array in codes.items():
        # Inside the graph a size that moves with the batch may be a multiple of it (heads folded into the batch).
        shape = program.values[name].shape
        fits = array.shape == batch_shape(program, name) if name in program.outputs else (
            len(array.shape) == len(shape) and all(s in (None, t) for s, t in zip(shape, array.shape, strict=True)))
        if not fits:
            raise ProgramError(f"the codes of {name!r} have shape {list(array.shape)}, not the program's "
                               f"{list(batch_shape(program, name))}: mend its value")
    return Vectors({node.name: hash_codes(codes[node.name]) for node in program.nodes},
                   {name: codes[name] for name in _stored(program)})


def hash_codes(codes: np.ndarray) -> bytes:
    """8 bytes of BLAKE2b over "2x3x8x8:" and the codes, row-major, each least significant byte first."""
    shape = "x".join(map(str, codes.shape))
    return short_hash(f"{shape}:".encode() + codes.astype(codes.dtype.newbyteorder("<")).tobytes())


def put(vectors: Vectors, program: Program, writer: Writer) -> None:
    """Hands the vectors to the writer, behind the program's own tensors."""
    for name, codes in vectors.outputs.items():
        writer.put((_output(name),), pack(codes, program.encoding(name).format))
    hashes = b"".join(vectors.hashes.values())
    writer.tensors[NODES] = np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)


def take(program: Program, reader: Reader, hashes: np.ndarray) -> Vectors:
    """Inverse of `put`. hashes: the tensor `NODES`. Raises Refusal when sizes disagree with the program."""
    if hashes.dtype != np.uint8 or hashes.shape != (len(program.nodes), HASH_BYTES):
        raise Refusal("does not have one test hash for each node")
    outputs = {}
    for name in _stored(program):
        packed, shape = reader.take((_output(name),)), batch_shape(program, name)
        format = program.encoding(name).format
        if packed.dtype != np.uint8 or packed.ndim != 1 or packed.size != packed_bytes(prod(shape), format):
            raise Refusal(f"does not hold the expected codes of {quoted(name)} in their shape")
        outputs[name] = unpack(packed, format, shape)
    names = [node.name for node in program.nodes]
    return Vectors({name: row.tobytes() for name, row in zip(names, hashes, strict=True)}, outputs)


def batch_shape(program: Program, name: str) -> tuple[int, ...]:
    """Shape of a value in the test vectors."""
    return tuple(BATCH if size is None else size for size in program.values[name].shape)


def _stored(program: Program) -> Iterator[str]:
    """Outputs whose codes are stored: those that still fit, in order. The hashes cover the others."""
    left = OUTPUT_BYTES
    for name in program.outputs:
        size = packed_bytes(prod(batch_shape(program, name)), program.encoding(name).format)
        if size <= left:
            left -= size
            yield name


def _input_encoding(program: Program, name: str) -> Encoding | None:
    for node in program.nodes:
        if isinstance(node, Quantize) and node.input == name:
            return program.encoding(node.name)
    return None


def _output(name: str) -> str:
    return f"fewbits.output.{name}"
