"""Exported files in ONNX Runtime beside their float twins: `python -m benchmarks.exported [NAMES] [--write FILE]`.

One thread, batch 1, both files in turns in one process, medians of thread CPU time; then the time by operator, by ONNX
Runtime's own profile. Files are what `fewbits export` writes for this processor (`--processor this`: uint8 weights only
where it needs them). Weights are random, which changes no time; programs are made once and kept beside the results, to
which each line is added at once. A processor without VNNI can be had by masking CPUID, and its lines stand beside.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.networks import ZOO, network
from fewbits.artifact.file import read, to_bytes
from fewbits.capture.capture import capture
from fewbits.engines.processor import this_processor
from fewbits.engines.torch.executor import TorchExecutor
from fewbits.export.verified import exported_bytes
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.program.program import Program
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import Recipe
from fewbits.report.machine import this_machine
from fewbits.writers.onnx.builder import output_name
from fewbits.writers.onnx.program import OnnxForm
from fewbits.writers.onnx.twin import float_onnx_bytes

_STEM = ({"module": "conv_stem", "keep_float": True},)
LEFT_IN_FLOAT: Mapping[str, tuple[Mapping[str, object], ...]] = {
    "mobilenetv3_small_100": _STEM, "efficientnet_b0": _STEM,
    "mobilevit_xxs": tuple({"op": op, "keep_float": True} for op in ("matmul", "masked_softmax", "layer_norm")),
}
"""By network, the rules behind w8a8 that leave in float what ONNX Runtime computes more slowly in integers."""
RECIPES = ("w7a8", "w8a8", "w8a8 but")
FORMS: tuple[OnnxForm, ...] = ("integer", "qdq")


@dataclass(frozen=True)
class Line:
    """Milliseconds of a run, of the file and of its float twin, and of their operators; differing: output codes other
    than the program's, None where islands make that no promise."""

    network: str
    recipe: str
    form: str
    processor: str
    machine: str
    real: float
    ours: float
    differing: int | None
    real_operators: Mapping[str, float]
    operators: Mapping[str, float]


def program_of(name: str, recipe: str, folder: Path) -> Program:
    """Made once and kept."""
    file = folder / f"{name}.{recipe.replace(' ', '-')}.fewbits"
    if not file.exists():
        made = network(name, 1)
        model = fold(capture(made.net, made.x))
        chosen: str | Recipe = recipe
        if recipe == "w8a8 but":
            chosen = Recipe.model_validate({
                "version": 1, "weights": {"format": "int8", "symmetric": True, "block": "channel"},
                "activations": {"format": "uint8"}, "rules": list(LEFT_IN_FLOAT[name])})
        file.write_bytes(to_bytes(lower(calibrate(model, plan(model, chosen), [made.x]))))
    return read(file).program


def session(model: bytes, profile: Path | None = None) -> ort.InferenceSession:
    """One thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def operators(model: bytes, inputs: Mapping[str, np.ndarray], folder: Path, repeats: int) -> dict[str, float]:
    """Milliseconds by operator, the longest first: of each node the lower quartile of its runs."""
    run = session(model, folder / "profile")
    for _ in range(repeats):
        run.run(None, dict(inputs))
    file = Path(run.end_profiling())
    seen: dict[tuple[str, str], list[int]] = {}
    for event in json.loads(file.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
    file.unlink()
    total: Counter[str] = Counter()
    for (operator, _), times in seen.items():
        total[operator] += sorted(times)[len(times) // 4]
    return {operator: micros / 1e3 for operator, micros in total.most_common()}


def measured(name: str, recipe: str, form: OnnxForm, folder: Path, repeats: int) -> Line:
    """One file beside its twin."""
    program = program_of(name, recipe, folder)
    shape = [size or 1 for size in program.values[program.inputs[0]].shape]
    inputs = {program.inputs[0]: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    models = float_onnx_bytes(program), exported_bytes(program, form, "this")
    sessions = [session(model) for model in models]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for run, into in zip(sessions, times, strict=True):
            begun = time.thread_time()
            run.run(None, inputs)
            into.append(1e3 * (time.thread_time() - begun))
    real, ours = (float(np.median(each[1:])) for each in times)
    by_operator = [operators(model, inputs, folder, repeats) for model in models]
    machine, processor = this_machine(), this_processor()
    features = ", ".join(processor.features or ())
    return Line(name, recipe, form, f"{processor.name} ({features})", str(machine), real, ours,
                _differing(program, sessions[1], inputs), *by_operator)


def _differing(program: Program, run: ort.InferenceSession, inputs: Mapping[str, np.ndarray]) -> int | None:
    if program.has_islands:
        return None
    names = [output.name for output in run.get_outputs()]
    got = {name: np.asarray(array) for name, array in zip(names, run.run(None, dict(inputs)), strict=True)}
    wanted = TorchExecutor(program).run(inputs)
    return sum(int(np.not_equal(got[output_name(name)], program.real(name, wanted[name])).sum())
               for name in program.outputs)


_MADE = (
    "Made by `python -m benchmarks.exported --write docs/exported.md`: one thread, batch 1, random weights, thread "
    "CPU time, medians of runs in turns with the float twin (the same network without quantizers); the file is what "
    "`fewbits export --processor this` writes. *Ratio* is float over ours: above 1 the file is faster. *Differing* "
    "counts output codes other than the program's. `w8a8 but` leaves in float what the second table shows to be "
    "slower in integers, by the rules at the end. Other work ran on the machine; ratios moved by 5 % between runs. "
    "Of one processor, the section with fewer features was taken with CPUID masked for ONNX Runtime."
)


def document(lines: list[Line]) -> str:
    """docs/exported.md: the last line of each kind."""
    last = {(line.processor, line.network, line.recipe, line.form): line for line in lines}
    parts = ["# Exported files in ONNX Runtime", _MADE]
    for processor in dict.fromkeys(line.processor for line in lines):
        rows = [last[key] for name in ZOO for recipe in RECIPES for form in FORMS
                if (key := (processor, name, recipe, form)) in last]
        table = ["| network | recipe | form | float, ms | ours, ms | ratio | differing |", "|---" * 7 + "|"]
        table += [f"| {row.network} | {row.recipe} | {row.form} | {row.real:.2f} | {row.ours:.2f} | "
                  f"{row.real / row.ours:.2f} | {'islands' if row.differing is None else row.differing} |"
                  for row in rows]
        shown = [row for row in rows if row.form == "integer"]
        times = ["| network | recipe | float: ms by operator | ours: ms by operator |", "|---" * 4 + "|"]
        times += [f"| {row.network} | {row.recipe} | {_longest(row.real_operators)} | {_longest(row.operators)} |"
                  for row in shown]
        parts += [f"## {processor}", rows[0].machine, "\n".join(table), "\n".join(times)]
    rules = [f"- {name}: " + "; ".join(str(dict(rule)) for rule in rules) for name, rules in LEFT_IN_FLOAT.items()]
    return "\n\n".join([*parts, "## What `w8a8 but` leaves in float", "\n".join(rules)]) + "\n"


def _longest(times: Mapping[str, float], most: int = 9) -> str:
    items = list(times.items())
    rest = sum(value for _, value in items[most:])
    told = [f"{name} {value:.2f}" for name, value in items[:most]]
    return ", ".join([*told, f"others {rest:.2f}"] if rest else told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=ZOO)
    parser.add_argument("--recipes", default=",".join(RECIPES), help="with commas")
    parser.add_argument("--forms", default=",".join(FORMS), help="with commas")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--results", type=Path, default=Path("build/exported/lines.jsonl"), help="where lines are kept")
    parser.add_argument("--write", type=Path, help="the document to write of all results")
    given = parser.parse_args()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    for name in given.names:
        for recipe in given.recipes.split(","):
            if recipe == "w8a8 but" and name not in LEFT_IN_FLOAT:
                continue
            for form in given.forms.split(","):
                line = measured(name, recipe, form, given.results.parent, given.repeats)
                with given.results.open("a") as file:
                    file.write(json.dumps(asdict(line)) + "\n")
                print(f"{name} {recipe} {form}: {line.real:.2f} {line.ours:.2f} {line.real / line.ours:.2f} "
                      f"({line.differing} differ)", flush=True)
    if given.write:
        lines = [Line(**json.loads(text)) for text in given.results.read_text().splitlines()]
        given.write.write_text(document(lines))


if __name__ == "__main__":
    main()
