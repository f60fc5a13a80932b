"""Saving a program that an engine was seen to compute."""

from pathlib import Path

from fewbits.artifact.file import UNKNOWN, from_bytes, to_bytes
from fewbits.artifact.verify import torch_disputes
from fewbits.data.preparation import Preparation
from fewbits.errors import FileError, VerificationError
from fewbits.files import write_whole
from fewbits.program.program import Program
from fewbits.storage.refusal import Refusal


def save_verified(program: Program, path: str | Path, preparation: Preparation = UNKNOWN) -> None:
    """Writes the program to a `.fewbits` file, once the torch executor gave the reference's codes on its test vectors.

    preparation: what the network expects of its data, kept beside. Raises VerificationError when a code differs, and
    FileError when the program holds what the file cannot, or the disk refuses; an older file then stays.
    """
    try:
        data = to_bytes(program, preparation)
        disputed = torch_disputes(from_bytes(data, str(path)))
    except Refusal as refusal:
        raise FileError(f"{path} was not written, because it {refusal}") from None
    if disputed is not None:
        raise VerificationError(f"{path} was not written: the torch executor does not compute {disputed!r} as the "
                                "program defines it: report this to the makers of fewbits")
    write_whole(path, data)
