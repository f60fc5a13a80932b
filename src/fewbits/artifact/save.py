"""Saving a program that an engine was seen to compute."""

import mmap
from pathlib import Path

from fewbits.artifact import vectors
from fewbits.artifact.file import UNKNOWN, read_again, tensors_of
from fewbits.artifact.verify import torch_disputes
from fewbits.data.preparation import Preparation
from fewbits.errors import FileError, VerificationError
from fewbits.files import mapped, write_whole
from fewbits.program.program import Program
from fewbits.storage import container
from fewbits.storage.refusal import Refusal
from fewbits.storage.writer import this_writer


def save_verified(program: Program, path: str | Path, preparation: Preparation = UNKNOWN) -> None:
    """Writes the program to a `.fewbits` file. It takes its name once it was read back from the disk, and the torch
    executor gave the reference's codes on the test vectors it holds.

    preparation: what the network expects of its data, kept beside. The same program gives the same bytes. Raises
    VerificationError when a code differs, and FileError when the program holds what the file cannot, or the disk
    refuses; an older file then stays.
    """
    def check(file: Path) -> None:
        written = mapped(file)
        again = read_again(written, tensors)
        if isinstance(written.obj, mmap.mmap):
            written.obj.madvise(mmap.MADV_DONTNEED)  # its codes were copied: the pages need not stay in memory
        disputed = torch_disputes(again)
        if disputed is not None:
            raise VerificationError(f"{path} was not written: the torch executor does not compute {disputed!r} as the "
                                    "program defines it: report this to the makers of fewbits")

    try:
        tensors = tensors_of(program, vectors.expected(program), preparation)
        write_whole(path, container.pieces(tensors, this_writer()), check)
    except Refusal as refusal:
        raise FileError(f"{path} was not written, because it {refusal}") from None
