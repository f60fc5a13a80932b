"""The packages of docs/architecture.md: each imports only those below it, there are no cycles, and no import hides in a
function."""

import ast
import re
from pathlib import Path

import fewbits

SOURCE = Path(fewbits.__file__).parent

# Lowest floor first. Rooms on one floor do not know each other.
FLOORS = (
    ("errors",),
    ("limits",),
    ("files", "options", "processes", "progress", "rich_once", "version"),
    ("storage", "plots", "notebook"),
    ("data",),
    ("numerics",),
    ("kernels",),
    ("program",),
    ("writers",),
    ("engines",),
    ("graph",),
    ("capture",),
    ("fold",),
    ("pt2",),
    ("ranges",),
    ("quant",),
    ("encodings",),
    ("optimize",),
    ("train",),
    ("compress",),
    ("tensors",),
    ("lower",),
    ("export", "tasks"),
    ("artifact",),
    ("search",),
    ("report",),
    ("reproduce", "workflow"),
    ("testing", "api"),
    ("public",),
    ("__init__",),
    ("cli",),
    ("documents", "__main__"),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# An optional dependency is imported where it is used, so that its absence is an error only there; the command, where
# Ctrl-C is already heeded.
INSIDE_FUNCTIONS = {("__main__.py", "fewbits"), ("data/sets.py", "sklearn"), ("data/images.py", "PIL"),
                    ("search/solver.py", "highspy"), ("cli/search.py", "dask")}


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE), ast.parse(path.read_text())


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports(tree: ast.AST):
    """Dotted names of everything imported, with `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_architecture_page_names_every_floor_in_order():
    page = (Path(__file__).parents[1] / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|", page[page.index("| package | subject |"):], re.MULTILINE)
    named = [tuple(re.findall(r"`(\w+)`", row)) for row in rows]
    assert named == list(FLOORS)


def test_every_room_has_a_floor():
    assert {room_of(path) for path, _ in modules()} <= set(FLOOR)


def test_no_import_looks_up():
    looking_up = []
    for path, tree in modules():
        for name in imports(tree):
            parts = name.split(".")
            if parts[0] != "fewbits":
                continue
            room = parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"
            here = room_of(path)
            if room != here and FLOOR[room] >= FLOOR[here]:
                looking_up.append(f"{path} imports {name}")
    assert not looking_up


def test_no_cycles_inside_rooms():
    edges = {}
    for path, tree in modules():
        module = ".".join(("fewbits", *path.with_suffix("").parts)).removesuffix(".__init__")
        edges[module] = set(imports(tree))
    known = set(edges)
    target_of = {name: name if name in known else name.rpartition(".")[0] for names in edges.values() for name in names}
    graph = {module: {target for name in names if (target := target_of[name]) in known and target != module}
             for module, names in edges.items()}
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a cycle: {' → '.join([*path[path.index(module):], module])}"
        if module not in done:
            path.append(module)
            for target in graph[module]:
                visit(target)
            path.pop()
            done.add(module)

    for module in graph:
        visit(module)


def test_no_import_inside_a_function():
    hidden = []
    for path, tree in modules():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                hidden += [(str(path), name.split(".")[0]) for name in imports(function)]
    assert set(hidden) <= INSIDE_FUNCTIONS
