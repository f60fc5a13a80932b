"""Random networks through every engine, counted: `python -m benchmarks.fuzz_networks --count 500`.

Prints how many networks became programs, which operators of the table they hold, and per engine how many codes (of
every value, and of the outputs) were compared with the reference's and differ. What is not promised to be equal (QDQ
with optimisation off, docs/numerics.md) is counted apart; a network that raises is counted by what it raised. Ends with
exit code 1 when an engine differs that must not, a network raises, or an operator was not seen.
"""

import argparse
import sys
import warnings
from collections import Counter

import torch

from fewbits.errors import FewbitsError
from fewbits.graph.operators import OPERATORS
from fewbits.progress import track
from fewbits.report.engines import EngineAgreement, agreement
from fewbits.testing import random_program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "Using padding='same'")
    compared: Counter[tuple[str, str, bool]] = Counter()
    differing: Counter[tuple[str, str, bool]] = Counter()
    operators: Counter[str] = Counter()
    raised: Counter[str] = Counter()
    for seed in track(range(given.first, given.first + given.count), "networks"):
        try:
            made = random_program(seed)
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


def _key(row: EngineAgreement) -> tuple[str, str, bool]:
    return row.name, row.values, row.exact


if __name__ == "__main__":
    sys.exit(main())
