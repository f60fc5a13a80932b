"""Plants one fault at a time in the arithmetic, and says which no test notices: `python -m benchmarks.planted_faults`.

Each fault is a piece of text that stands once in the source, wherever it has moved to, what it becomes, and the test
files that must then fail. It is planted in a copy, so that nothing here changes. A few words choose among the faults:
`python -m benchmarks.planted_faults percentile`. Ends with 1 when one survives.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

_SPEC = find_spec("fewbits")  # which does not import it: that is for the copies
assert _SPEC is not None and _SPEC.origin is not None, "fewbits is installed"
SOURCE = Path(_SPEC.origin).resolve().parent
TESTS = Path(__file__).resolve().parents[1] / "tests"


@dataclass(frozen=True)
class Fault:
    """what: in words; old, new: of the source; tests: names of files in tests/, and of pytest's `-k` behind a colon."""

    what: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS: tuple[Fault, ...] = (
    # ------------------------------------------------------------------ numbers and their codes
    Fault("half_away sends a tie to zero", "abs(_rest(x, whole)) >= 0.5", "abs(_rest(x, whole)) > 0.5",
          ("test_rounding.py",)),
    Fault("half_up sends a tie down", "where(_rest(x, whole) >= 0.5, whole + 1, whole)",
          "where(_rest(x, whole) > 0.5, whole + 1, whole)", ("test_rounding.py",)),
    Fault("half_even of NumPy is half_up", "isinstance(x, torch.Tensor) else np.rint(x)",
          "isinstance(x, torch.Tensor) else np.floor(x + 0.5)", ("test_rounding.py",)),
    Fault("stochastic rounding goes up too seldom", "where(draw < share, high, low)", "where(draw > share, high, low)",
          ("test_rounding.py",)),
    Fault("a recurrence runs forwards whatever it says", "range(count)[::-1 if node.backwards else 1]", "range(count)",
          ("test_recurrence.py",)),
    Fault("an axis that a reshape joins counts as kept", "and beside(after, place) == beside(before, axis)), None)",
          "), None)", ("test_free_sizes.py",)),
    Fault("exact division lets 64 bits overflow", "small = int(array.min()) > -(2**62) and int(array.max()) < 2**62",
          "small = int(array.max()) < 2**63", ("test_rounding.py",)),
    Fault("Fixed multiplies without its rounding rule",
          "divide(product, 2**self.fraction_bits, self.arithmetic.multiply)",
          "divide(product, 2**self.fraction_bits, floor)", ("test_fixed.py",)),
    Fault("the zero point is added before rounding", "(rounding(real / scale) + zero_point).clip(low, high)",
          "rounding(real / scale + zero_point).clip(low, high)", ("test_golden_integers.py", "test_encoding.py")),
    Fault("numbers are multiplied with 1/scale", "np.divide(real, scale, out=steps)\n    np.rint(flat, out=flat)",
          "np.multiply(real, 1 / scale, out=steps)\n    np.rint(flat, out=flat)",
          ("test_golden_integers.py", "test_encoding.py")),
    Fault("the highest code is never written", "np.clip(steps, low - shift, high - shift, out=steps)",
          "np.clip(steps, low - shift, high - shift - 1, out=steps)", ("test_golden_integers.py", "test_encoding.py")),
    Fault("a narrow range keeps its lowest code", "return -(2 ** (self.bits - 1)) + self.narrow if",
          "return -(2 ** (self.bits - 1)) if", ("test_golden_integers.py", "test_encoding.py")),
    Fault("unpacking takes the lowest code for a positive one", "np.where(some >= 1 << (format.bits - 1),",
          "np.where(some > 1 << (format.bits - 1),", ("test_packing.py",)),
    Fault("groups that do not divide are taken", "if size and length % size:", "if size and length % size and False:",
          ("test_block.py",)),
    Fault("powers of two change over in the linear middle", "above = [base ** (e + 0.5) for e in",
          "above = [1.5 * base**e for e in", ("test_tables.py", "test_encoding.py")),
    Fault("a float's exponents lie one too high",
          'return (1 if self.underflow in ("gradual", "flush") else 0) - self._bias',
          'return (1 if self.underflow in ("gradual", "flush") else 0) - self._bias + 1', ("test_floats.py",)),
    # ------------------------------------------------------------------ ranges and scales
    Fault("symmetric scales of 8 bits divide by 128", "return max(float(2 ** (format.bits - 1) - 1), 1.0)",
          "return float(2 ** (format.bits - 1))", ("test_scale_formats.py", "test_golden_integers.py")),
    Fault("zero points are rounded down", "half_even(format.low - low / scale)", "np.floor(format.low - low / scale)",
          ("test_scale_formats.py", "test_golden_integers.py")),
    Fault("a percentile takes the next rank", "np.searchsorted(np.cumsum(counts.count), rank)",
          "np.searchsorted(np.cumsum(counts.count), rank + 1)", ("test_histogram.py:rank", "test_rules.py:percentile")),
    Fault("a lower percentile takes the next rank", "np.searchsorted(np.cumsum(counts.count[::-1]), rank)",
          "np.searchsorted(np.cumsum(counts.count[::-1]), rank + 1)",
          ("test_histogram.py:rank", "test_rules.py:percentile")),
    Fault("a percentile of magnitudes takes the rank before", "np.searchsorted(np.cumsum(magnitudes), rank)",
          "np.searchsorted(np.cumsum(magnitudes), rank - 1)", ("test_histogram.py:rank", "test_rules.py:percentile")),
    Fault("the error of rounding is step²/6",
          "sums[0, below]) * step**2 / 12", "sums[0, below]) * step**2 / 6", ("test_rules.py:grid",)),
    Fault("mse adds products instead of squares", "return second - 2 * value * first + value**2 * number",
          "return second - value * first + value**2 * number", ("test_rules.py",)),
    Fault("kl has twice the levels",
          "if all_codes else target.format.bits - 1)", "if all_codes else target.format.bits)",
          ("test_kl.py:levels",)),
    Fault("a moving average forgets its order",
          "decay * (self.momentum * self._rest + (1 - self.momentum) * first) + rest",
          "decay * ((1 - self.momentum) * self._rest + self.momentum * first) + rest", ("test_rules.py:moving",)),
    # ------------------------------------------------------------------ the program's arithmetic
    Fault("a mean divides by one too many", "np.multiply(y.scale, f32(count), dtype=f32)",
          "np.multiply(y.scale, f32(count + 1), dtype=f32)", ("test_operators.py",)),
    Fault("sums are bounded as if codes were all positive",
          "lowest, highest = low * positive + high * negative, high * positive + low * negative",
          "lowest, highest = low * positive + low * negative, high * positive + high * negative",
          ("test_torch_kernels.py", "test_golden_products.py", "test_profiles.py")),
    Fault("a bound of -2^k takes a bit more", "(-self.low - 1).bit_length() if self.low < 0",
          "(-self.low).bit_length() if self.low < 0", ("test_sums.py",)),
    Fault("double rounding sends negative ties up", "> (mask >> 1) + (high < 0))", "> (mask >> 1))",
          ("test_fixed_point.py", "test_litert.py")),
    Fault("multipliers are cut instead of rounded", "np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)\n    full =",
          "np.floor(fraction * 2.0**31).astype(np.int64)\n    full =",
          ("test_fixed_point.py", "test_litert.py")),
    Fault("single rounding rounds down", "lower = (x & (2**20 - 1)) * factor.mantissa + (np.int64(1) << (right - 1))",
          "lower = (x & (2**20 - 1)) * factor.mantissa", ("test_fixed_point.py", "test_litert.py")),
    Fault("torch's double rounding sends negative ties up",
          "(high + half - ((high < 0) & (right > 0)).long()) >> right",
          "(high + half) >> right", ("test_fixed_point.py", "test_profiles.py", "test_torch_kernels.py")),
    Fault("exponentials of a softmax are cut",
          "np.rint(powers * 2.0**SOFTMAX_BITS)", "np.floor(powers * 2.0**SOFTMAX_BITS)",
          ("test_frozen.py:codes", "test_operators.py")),
    Fault("the epsilon of a layer norm is divided once too often", "epsilon * length**2 / np.float64(x.scale) ** 2",
          "epsilon * length / np.float64(x.scale) ** 2", ("test_frozen.py:codes", "test_operators.py")),
    Fault("a layer norm's variance is that of a sample", "variance = (length * squares - total * total).astype(f32)",
          "variance = ((length * squares - total * total) * length / max(length - 1, 1)).astype(f32)",
          ("test_frozen.py:codes", "test_operators.py")),
    Fault("a threshold is not reached by itself", "reached += directed >= along(", "reached += directed > along(",
          ("test_threshold.py", "test_frozen.py:codes")),
    Fault("float32 sums up to 2^25", "magnitude < 2**24 else torch.float64", "magnitude < 2**25 else torch.float64",
          ("test_torch_kernels.py",)),
    Fault("the fused sum rounds twice", "odd = bits + np.where((error != 0) & (bits & 1 == 0), towards_error, 0)",
          "odd = bits", ("test_sums.py",)),
    Fault("dynamic zero points are cut", "zero = half_even(np.asarray(np.clip(-low / scale,",
          "zero = np.floor(np.asarray(np.clip(-low / scale,", ("test_dynamic.py", "test_frozen.py:codes")),
    Fault("islands may be a hundred times as far off as they are", "TOLERANCE = 1e-5", "TOLERANCE = 1e-4",
          ("test_islands.py:tolerance",)),
    Fault("half of a GELU", 'return _applied("Mul", _applied("Mul", X, 0.5), _applied("Add", gate, 1.0))',
          'return _applied("Mul", X, _applied("Add", gate, 1.0))', ("test_unary.py:gelu",)),
    Fault("the tanh form of GELU has 0.0447",
          "_applied(\"Mul\", _applied(\"Mul\", _applied(\"Mul\", X, X), X), 0.044715)",
          "_applied(\"Mul\", _applied(\"Mul\", _applied(\"Mul\", X, X), X), 0.0447)", ("test_unary.py:gelu",)),
    # ------------------------------------------------------------------ folding and lowering
    Fault("folding leaves out epsilon", 'torch.rsqrt(var + node["eps"])', "torch.rsqrt(var)", ("test_golden_fold.py",)),
    Fault("folding adds the mean", "shift = -mean * scale", "shift = mean * scale", ("test_golden_fold.py",)),
    # ------------------------------------------------------------------ repairs
    Fault("AdaRound's β rises", "(1 + math.cos(math.pi * share))", "(1 - math.cos(math.pi * share))",
          ("test_schedule.py", "test_adaround.py:golden")),
    Fault("BRECQ's schedule is reversed",
          "schedule.warm_start, schedule.beta)\n            for rounding in roundings:",
          "schedule.warm_start, schedule.beta[::-1])\n            for rounding in roundings:",
          ("test_schedule.py",)),
    Fault("BRECQ has no warm start",
          "beta = beta_at(iteration, schedule.iterations, schedule.warm_start, schedule.beta)\n            for",
          "beta = beta_at(iteration, schedule.iterations, 0.0, schedule.beta)\n            for",
          ("test_schedule.py",)),
    Fault("AdaRound begins on the other side", "return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)",
          "return torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)", ("test_adaround.py:golden",)),
    Fault("equalization has no root", "(first / torch.where(usable, second, 1.0)).sqrt()",
          "(first / torch.where(usable, second, 1.0))", ("test_dfq.py",)),
    Fault("bias correction has the other sign", "bias.double() - shift(layer, error, mean)",
          "bias.double() + shift(layer, error, mean)", ("test_dfq.py",)),
    Fault("the mean behind a ReLU has the other sign",
          "first = normal.mean * inside + std * (moments[0][0] - moments[1][0])",
          "first = normal.mean * inside - std * (moments[0][0] - moments[1][0])", ("test_dfq.py",)),
    Fault("GPTQ does not divide its error",
          "* scale[:, j]) / upper[j, j]", "* scale[:, j])", ("test_layerwise.py:gptq",)),
    # ------------------------------------------------------------------ training
    Fault("LSQ's gradient has no root", "return 1 / sqrt(count / self.scale.numel() * self.highest)",
          "return 1 / (count / self.scale.numel() * self.highest)", ("test_golden.py", "test_methods.py:lsq")),
    Fault("DoReFa has 2^k steps", "codes = 2 * torch.round(self._steps * self._unit(weight)) - self._steps",
          "codes = 2 * torch.round(self._steps * self._unit(weight)) - self._steps - 1", ("test_golden.py",)),
    Fault("PACT's bound learns nothing", "torch.where(x >= self.bound, self.bound, x.clamp(min=0))",
          "torch.where(x >= self.bound, self.bound.detach(), x.clamp(min=0))", ("test_golden.py:clipped",)),
    Fault("decibels of amplitudes", "ratio = 10 * np.log10(signal / noise)", "ratio = 20 * np.log10(signal / noise)",
          ("test_sites.py", "test_explain.py")),
    Fault("a cubic schedule is square", "(start - density) * (1 - done) ** 3", "(start - density) * (1 - done) ** 2",
          ("test_prune.py",)),
)


def place(fault: Fault, source: Path) -> Path:
    """The file that holds the fault's text. Raises LookupError unless one does, and once."""
    found = [path for path in sorted(source.rglob("*.py")) for _ in range(path.read_text().count(fault.old))]
    if len(found) != 1:
        where = ", ".join(str(path.relative_to(source)) for path in found) or "nowhere"
        raise LookupError(f"{fault.what!r}: its text stands in {where}, not once: give it the text of today")
    return found[0]


def selected(fault: Fault) -> list[list[str]]:
    """pytest's arguments, one list for each run. Raises LookupError for a test file that is not there."""
    runs: list[list[str]] = []
    whole = []
    for name in fault.tests:
        file, _, words = name.partition(":")
        paths = sorted(map(str, TESTS.rglob(file)))
        if not paths:
            raise LookupError(f"{fault.what!r}: there is no test file {file}: give it one of today")
        if words:
            runs.append([*paths, "-k", words])
        else:
            whole += paths
    return runs + ([whole] if whole else [])


def is_noticed(fault: Fault, folder: Path) -> bool:
    """Whether some of its tests fails once the fault is in the copy of the source below `folder`."""
    path = place(fault, folder / "fewbits")
    text = path.read_text()
    path.write_text(text.replace(fault.old, fault.new))
    try:
        return any(_fails(arguments, folder) for arguments in selected(fault))
    finally:
        path.write_text(text)


def _fails(arguments: list[str], folder: Path) -> bool:
    """Whether pytest fails on the copy, in a process of its own: a fork of this one where this one has loaded the
    libraries but not fewbits, which saves most of the time."""
    arguments = ["-x", "-q", "-p", "no:cacheprovider", *arguments]
    code = _run(arguments, folder) if "fewbits" in sys.modules else _forked(arguments, folder)
    if code not in (0, 1):  # nothing was collected, or pytest itself failed
        raise RuntimeError(f"pytest {' '.join(arguments)} ended with {code}")
    return code == 1


def _run(arguments: list[str], folder: Path) -> int:
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=TESTS.parent, env=environment,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def _forked(arguments: list[str], folder: Path) -> int:
    for name in ("torch", "numpy", "hypothesis", "onnx", "onnxruntime", "pydantic", "rich", "safetensors"):
        import_module(name)
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(TESTS.parent)
        os.environ["PYTHONPATH"] = str(folder)  # of the processes that tests start
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        try:
            code = int(pytest.main(arguments))
        except BaseException:  # whatever it is, the parent is to go on
            code = 70
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="plant only what says one of these words")
    given = parser.parse_args()
    chosen = [fault for fault in FAULTS if not given.words or any(word in fault.what for word in given.words)]
    survivors = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(SOURCE, folder / "fewbits", ignore=shutil.ignore_patterns("__pycache__"))
        sound = sorted({tuple(run) for fault in chosen for run in selected(fault)})
        for arguments in sound:
            if _fails(list(arguments), folder):
                sys.exit(f"pytest {' '.join(arguments)} fails without any fault: mend that first")
        for number, fault in enumerate(chosen, 1):
            noticed = is_noticed(fault, folder)
            survivors += [] if noticed else [fault.what]
            print(f"{number:3} of {len(chosen)}: {fault.what}: {'noticed' if noticed else 'SURVIVES'}", flush=True)
    print(f"{len(chosen)} faults, survivors: {', '.join(survivors) or 'none'}")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
