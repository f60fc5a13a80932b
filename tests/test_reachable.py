"""What nobody can reach but a test: the list may only shrink.

A function or class is reached when a verb of the command line, the public names of `fewbits`, the conformance checks,
the documents made from the code or a benchmark lead to it, through whatever they call. The rest is kept for a reason
that stands here, is given a way in, or goes.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import fewbits

SOURCE = Path(fewbits.__file__).parent
BENCHMARKS = SOURCE.parents[1] / "benchmarks"

LABS = "to be run by the labs, on one tensor"
TRAINING = "rounding of fixed-point fine-tuning"
KEPT = {
    "compress.coded.with_order": "forces each order of a coded tensor, of which saving takes the shortest",
    "compress.share.refresh": "one round of k-means, with which training by codebook-refresh is compared",
    "compress.share.stored_ratio": LABS,
    "compress.tune.summed_step": LABS,
    "data.language.stories": "reads the texts by which stories260k is measured",
    "kernels.calls.run": "the native engine, which is being built",
    "numerics.levels.codebook": LABS,
    "numerics.mac.conv2d": LABS,
    "numerics.mac.matmul": LABS,
    "numerics.rounding.to_step": LABS,
    "numerics.rounding.stochastic_from": TRAINING,
    "program.limits.limit_names": "what a profile may lack, of which a test sees that each is used",
    "ranges.fixed_point.fixed_point": LABS,
    "ranges.fixed_point.least_error_point": LABS,
    "ranges.microscaling.mx": LABS,
    "ranges.microscaling.nvfp4": LABS,
    "ranges.ristretto.minifloat_exponent_bits": "Ristretto's search",
    "ranges.ristretto.power_of_two": "Ristretto's search",
}

Names = dict[str, set[str]]


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(("fewbits", *path.relative_to(SOURCE).with_suffix("").parts))
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())
    for path in sorted(BENCHMARKS.glob("*.py")):
        yield f"benchmarks.{path.stem}", ast.parse(path.read_text())


def is_way_in(module: str) -> bool:
    return module in ("fewbits", "fewbits.public", "fewbits.plots") or module.startswith(
        ("benchmarks.", "fewbits.__main__", "fewbits.cli", "fewbits.documents", "fewbits.testing"))


def imported(tree: ast.AST) -> dict[str, str]:
    """Full names by what they are called here."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
    return found


def defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return []


def references(module: str, statement: ast.stmt, names: dict[str, str]) -> set[str]:
    """Full names of what a statement mentions; an import mentions what it brings where it is a way in."""
    found = set(imported(statement).values()) if is_way_in(module) else set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            found.add(names.get(node.id, f"{module}.{node.id}"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            found.add(f"{names[node.value.id]}.{node.attr}")
    return found


def unreached() -> set[str]:
    mentions: Names = {}  # by full name; what runs when a module is imported, by the module's
    kinds: set[str] = set()
    for module, tree in modules():
        names = imported(tree)
        for statement in tree.body:
            of = [f"{module}.{name}" for name in defined(statement)]
            for name in of or [module]:
                mentions.setdefault(name, set()).update(references(module, statement, names))
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                kinds.update(of)
    reached: set[str] = set()
    waiting = [name for name in mentions if is_way_in(name if name in {"fewbits"} else name.rpartition(".")[0])
               or is_way_in(name)]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [each for each in (*mentions.get(name, ()), name.rpartition(".")[0]) if each in mentions]
    return {name.removeprefix("fewbits.") for name in kinds - reached if not name.rpartition(".")[2].startswith("_")}


def test_nothing_new_is_reached_by_tests_alone() -> None:
    assert unreached() - KEPT.keys() == set(), "give it a way in, let it go, or say in KEPT why it stays"


def test_the_list_shrinks_with_its_reasons() -> None:
    assert KEPT.keys() - unreached() == set(), "these are reached now, or gone: take them off the list"
