"""Programs of earlier days: they are read, they compute the same codes, and they are written as the same ONNX bytes.

A hash in onnx.json (plainly written) or exported.json (as exported for any processor) may change only in a commit that
says why; those in codes.json never.
"""

import json

import pytest
from freeze import CODES, EXPORTED, FORMS, ONNX, PROGRAMS, code_hashes, export_hash, onnx_hash

from fewbits.artifact.file import read
from fewbits.artifact.verify import verify
from fewbits.program import ops as op
from fewbits.program.profile import PROFILES

NAMES = sorted(file.stem for file in PROGRAMS.glob("*.fewbits"))
KNOWN_CODES, KNOWN_ONNX, KNOWN_EXPORTS = (json.loads(file.read_text()) for file in (CODES, ONNX, EXPORTED))


def frozen(name: str):
    return read(PROGRAMS / f"{name}.fewbits")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_codes(name):
    """Every value, by the reference; the numbers of islands, which no two machines need round alike, in tolerance."""
    artifact = frozen(name)
    assert code_hashes(artifact.program) == KNOWN_CODES[name]
    assert [replay.differing for replay in verify(artifact, ["reference", "torch"])] == [0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_onnx_bytes(name):
    program = frozen(name).program
    assert {form: onnx_hash(program, form) for form in FORMS} == KNOWN_ONNX[name]
    assert {form: export_hash(program, form) for form in FORMS} == KNOWN_EXPORTS[name]


def test_they_are_of_every_kind():
    programs = [frozen(name).program for name in NAMES]
    assert len(programs) >= 40
    assert set(KNOWN_CODES) == set(KNOWN_ONNX) == set(KNOWN_EXPORTS) == set(NAMES)
    assert {type(node) for program in programs for node in program.nodes} == set(op.RECORDS)
    assert {program.profile.name.split("/")[0] for program in programs} == set(PROFILES)
    assert sum(file.stat().st_size for file in PROGRAMS.iterdir()) < 2**20
