"""Saving and loading: a Program, its test vectors, and the facts of the file."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from fewbits.artifact import vectors
from fewbits.artifact.codec import Reader, Writer, decode, encode
from fewbits.artifact.sizes import Item, itemise
from fewbits.artifact.vectors import Vectors
from fewbits.data.preparation import Preparation
from fewbits.errors import FewbitsError, FileError
from fewbits.limits import GRAPH_ELEMENTS
from fewbits.numerics.encoding import Encoding
from fewbits.program.program import Program
from fewbits.program.widths import check_sums
from fewbits.storage import container
from fewbits.storage.container import Container
from fewbits.storage.refusal import Refusal, quoted, shortened
from fewbits.storage.writer import this_writer

PROGRAM = "fewbits.program"
PREPARATION = "fewbits.preparation"
WEIGHTS = "fewbits.weights"  # what a file of compressed weights has in its place
UNKNOWN = Preparation()
_RESERVED = (PROGRAM, PREPARATION, vectors.NODES, container.HASHES)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A file that has been read and found whole.

    path: as it was given; preparation: what the network expects of its data; version: of the format; writer: who wrote
    it, such as `fewbits 0.1.0`; digest: SHA-256, 64 hex digits; size: bytes of the file; items: where they go.
    """

    path: str
    program: Program
    vectors: Vectors
    preparation: Preparation
    version: int
    writer: str
    digest: str
    size: int
    items: tuple[Item, ...]

    def __str__(self) -> str:
        return (f"{self.path}: {len(self.program.nodes)} nodes for {self.program.profile.name}, "
                f"{self.size} bytes, format {self.version} by {self.writer}, sha256 {self.digest[:16]}…")


def read(path: str | Path) -> Artifact:
    """All that a `.fewbits` file holds.

    Raises FileError, naming the file and the mend, for one that is missing, cut, damaged in a single bit, of
    another version, not ours, or not what `save` could have written.
    """
    name = str(path)
    try:
        data = _bytes(Path(path))
        return from_bytes(data, name)
    except Refusal as refusal:
        raise FileError(f"{name} {refusal}") from None
    except FileNotFoundError:
        raise FileError(f"{name} does not exist: check the path") from None
    except OSError as error:
        told = error.strerror or str(error)
        raise FileError(f"{name} cannot be read ({told}): check its permissions and the disk") from None


def sizes(path: str | Path) -> tuple[Item, ...]:
    """The bytes of a file by layer and part; they add up to its size. Raises FileError, as `read` does."""
    return read(path).items


def to_bytes(program: Program, preparation: Preparation = UNKNOWN) -> bytes:
    """The bytes of the file. Raises Refusal when the program holds what a file cannot."""
    tensors = tensors_of(program, vectors.expected(program), preparation)
    data = container.build(tensors, this_writer())
    read_again(memoryview(data), tensors)
    return data


def read_again(written: memoryview, tensors: Mapping[str, np.ndarray]) -> Artifact:
    """What was written, read. Raises Refusal unless it gives the same tensors when it is written again."""
    read_back = from_bytes(written, "the new file")
    again = tensors_of(read_back.program, read_back.vectors, read_back.preparation)
    same = again.keys() == tensors.keys() and all(
        array.dtype == tensors[name].dtype and array.shape == tensors[name].shape
        and np.array_equal(_bits(array), _bits(tensors[name])) for name, array in again.items())
    if not same:
        raise Refusal("would not give the same program back", "report this to the makers of fewbits")
    return read_back


def _bits(array: np.ndarray) -> np.ndarray:
    """Its bytes, uncopied where they lie together."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def from_bytes(data: bytes | memoryview, path: str) -> Artifact:
    """Inverse of `to_bytes`. path: for the Artifact only. Raises Refusal."""
    held = container.parse(data)
    reader = Reader(held.tensors, _RESERVED)
    try:
        program = decode(container.from_json(_document(held), "program"), Program, reader)
        preparation = _preparation(held, reader)
        _check_values(program)
        _check_sums(program)
        expected = vectors.take(program, reader, _reserved(held, vectors.NODES))
        reader.finish()
    except RecursionError:
        raise Refusal("nests its program too deeply") from None
    return Artifact(path, program, expected, preparation, container.VERSION, held.writer, held.digest, held.size,
                    itemise(held, reader.places, {PROGRAM: "program JSON", PREPARATION: "preparation JSON"}))


def tensors_of(program: Program, expected: Vectors, preparation: Preparation) -> dict[str, np.ndarray]:
    """All that a file holds. Raises Refusal when the program holds what a file cannot."""
    writer = Writer(_RESERVED)
    document = container.to_json(encode(program, Program, writer))
    if len(document) > container.HEADER_LIMIT:
        raise Refusal(f"would take {len(document)} bytes of JSON, and {container.HEADER_LIMIT} is the most",
                      "save parts of the model as programs of their own")
    writer.tensors[PROGRAM] = np.frombuffer(document, np.uint8)
    if preparation != UNKNOWN:
        told = container.to_json(encode(preparation, Preparation, writer))
        writer.tensors[PREPARATION] = np.frombuffer(told, np.uint8)
    vectors.put(expected, program, writer)
    return writer.tensors


def _check_values(program: Program) -> None:
    """Refuses values that no array can be: what comes later multiplies sizes and spreads scales."""
    for name, value in program.values.items():
        sizes = [1 if size is None else size for size in value.shape]
        possible = (len(sizes) <= container.RANK_LIMIT and all(size >= 0 for size in sizes)
                    and prod(max(size, 1) for size in sizes) <= GRAPH_ELEMENTS)
        if not (possible and _fits(value.encoding, vectors.batch_shape(program, name))):
            raise Refusal(f"says of {quoted(name)} that it is {quoted(str(value))}, which cannot be")


def _check_sums(program: Program) -> None:
    """Refuses sums that overflow: each engine would wrap or saturate them in its own way."""
    try:
        check_sums(program)
    except FewbitsError as error:
        raise Refusal(f"holds sums that do not fit their integers ({shortened(str(error))})") from None


def _fits(encoding: Encoding | None, shape: tuple[int, ...]) -> bool:
    if encoding is None or not isinstance(encoding.scale, np.ndarray):
        return True
    try:
        return encoding.block.scale_shape(shape) == encoding.scale.shape
    except FewbitsError:
        return False


def _preparation(held: Container, reader: Reader) -> Preparation:
    if PREPARATION not in held.tensors:
        return UNKNOWN
    return decode(container.from_json(_json(held, PREPARATION, "preparation"), "preparation"), Preparation, reader)


def _document(held: Container) -> bytes:
    if PROGRAM not in held.tensors and WEIGHTS in held.tensors:
        raise Refusal("holds compressed weights and no program", "use `fewbits inspect` or `fewbits decompress`")
    return _json(held, PROGRAM, "program")


def _json(held: Container, name: str, what: str) -> bytes:
    document = _reserved(held, name)
    if document.dtype != np.uint8 or document.nbytes > container.HEADER_LIMIT:
        raise Refusal(f"has a {what} of more than {container.HEADER_LIMIT} bytes, or not of bytes")
    return document.tobytes()


def _reserved(held: Container, name: str) -> np.ndarray:
    if name not in held.tensors:
        raise Refusal(f"has no tensor {name!r}")
    return held.tensors[name]


def _bytes(path: Path) -> bytes:
    """A file's bytes, read only when its size is what its header says."""
    if "\0" in str(path):
        raise FileNotFoundError
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise Refusal("is a folder", "name the .fewbits file in it")
    if not stat.S_ISREG(status.st_mode):  # a pipe would never end
        raise Refusal("is no regular file", "copy its contents into one")
    with open(path, "rb") as file:
        start = file.read(9)
        length = container.header_length(start)
        head = start + file.read(length - 1)
        if len(head) < 8 + length:
            raise Refusal(f"is cut short inside its header, after {len(head)} bytes")
        expected = container.expected_size(head)
        container.check_size(status.st_size, expected)
        return head + file.read(expected - len(head))
