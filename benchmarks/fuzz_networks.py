"""Random networks through every engine, counted: `python -m benchmarks.fuzz_networks --count 500`.

Every sixth reads token numbers and a mask. With --native our own kernels alone are compared, at every level that this
processor has, on 1 to 3 threads, with every value kept and as users run them: faster, for many networks.

Prints how many networks became programs, which operators of the table they hold, and per engine how many codes (of
every value, and of the outputs) were compared with the reference's and differ. What is not promised to be equal (QDQ
with optimisation off, docs/numerics.md) is counted apart; a network that raises is counted by what it raised. Ends with
exit code 1 when an engine differs that must not, a network raises, or an operator was not seen.
"""

import argparse
import sys
import warnings
from collections import Counter

import numpy as np
import torch

from fewbits.engines.native.executor import NativeExecutor
from fewbits.errors import FewbitsError
from fewbits.graph.operators import OPERATORS
from fewbits.kernels import library
from fewbits.program import reference
from fewbits.progress import track
from fewbits.report.engines import EngineAgreement, agreement
from fewbits.testing import random_masked_program, random_program
from fewbits.testing.random_programs import RandomProgram

_MASKED = 6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--native", action="store_true", help="compare our own kernels alone, at every level")
    given = parser.parse_args()
    if given.native:
        return native(range(given.first, given.first + given.count))
    warnings.filterwarnings("ignore", "Using padding='same'")
    compared: Counter[tuple[str, str, bool]] = Counter()
    differing: Counter[tuple[str, str, bool]] = Counter()
    operators: Counter[str] = Counter()
    raised: Counter[str] = Counter()
    for seed in track(range(given.first, given.first + given.count), "networks"):
        try:
            made = drawn(seed)
            batch = {name: torch.from_numpy(array) for name, array in made.inputs.items()}
            rows = agreement(made.program, [batch], every_value=True)
        except (FewbitsError, RuntimeError) as error:  # onnxruntime's are RuntimeErrors
            raised[f"{type(error).__name__}: {str(error).splitlines()[0]}"] += 1
            print(f"network {seed} raises {type(error).__name__}: {error}")
            continue
        operators.update(made.operators)
        for row in rows:
            key = _key(row)
            compared[key] += row.compared
            differing[key] += row.differing
            if row.exact and row.differing:
                print(f"network {seed}: {row}")
    unseen = sorted({row.name for row in OPERATORS} - set(operators))
    print(f"{given.count} networks, {given.count - raised.total()} programs, {len(operators)} of {len(OPERATORS)} "
          f"operators{': without ' + ', '.join(unseen) if unseen else ''}")
    print("  " + ", ".join(f"{name} {count}" for name, count in operators.most_common()))
    for kind, count in raised.most_common():
        print(f"  {count} raise {kind}")
    for key in compared:
        name, extent, exact = key
        note = "" if exact else "  (not promised)"
        print(f"  {name}, {extent}: {differing[key]} of {compared[key]} codes differ{note}")
    wrong = sum(count for (_, _, exact), count in differing.items() if exact)
    promised = sum(count for (_, _, exact), count in compared.items() if exact)
    print(f"{wrong} of {promised} codes differ where equality is promised")
    return int(bool(wrong or raised or unseen))


def drawn(seed: int) -> RandomProgram:
    """The program of that seed."""
    return random_masked_program(seed) if seed % _MASKED == _MASKED - 1 else random_program(seed)


def native(seeds: range) -> int:
    """Our own kernels beside the reference; 1 where a code differs."""
    compared, differing, in_torch, nodes = 0, 0, 0, 0
    for seed in track(seeds, "networks"):
        made = drawn(seed)
        names = made.program.written
        known = made.inputs | reference.run(made.program, made.inputs, names)
        for level in library.levels()[1:]:
            with library.use(level):
                for keep in (names, ()):
                    executor = NativeExecutor(made.program, threads=1 + seed % 3)
                    found = executor.run(made.inputs, keep)
                    wrong = [name for name in found if not np.array_equal(found[name], known[name])]
                    compared += sum(array.size for array in found.values())
                    if wrong:
                        print(f"network {seed} at {level}, {len(keep)} values kept: {wrong[0]!r} differs")
                        differing += sum(int((found[name] != known[name]).sum()) for name in wrong)
                real = executor.real(made.inputs)
                for name in made.program.outputs:
                    wanted = made.program.real(name, known[name])
                    compared += wanted.size
                    if not np.array_equal(real[name].view(np.uint8), np.ascontiguousarray(wanted).view(np.uint8)):
                        print(f"network {seed} at {level}: the numbers of {name!r} differ")
                        differing += wanted.size
                in_torch += len(executor.fallbacks(made.inputs))
                nodes += len(made.program.nodes)
    print(f"{len(seeds)} networks at levels {', '.join(library.levels()[1:])}: {differing} of {compared} codes and "
          f"numbers differ; {in_torch} of {nodes} nodes ran in torch")
    return int(differing > 0)


def _key(row: EngineAgreement) -> tuple[str, str, bool]:
    return row.name, row.values, row.exact


if __name__ == "__main__":
    sys.exit(main())
