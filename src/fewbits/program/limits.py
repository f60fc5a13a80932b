"""What some targets have no definition of. A profile lists the names, records say which nodes they mean; all nodes that
meet one are told at once."""

from fewbits.errors import LoweringError
from fewbits.program.ops import RECORDS
from fewbits.program.program import Program


def limit_names() -> frozenset[str]:
    """Every name that a profile may list in `lacks`."""
    return frozenset(name for record in RECORDS.values() for name in record.limits)


def check_limits(program: Program) -> None:
    """Raises LoweringError, naming every node the program's profile has no definition of."""
    met = []
    for limit in program.profile.lacks:
        names = [repr(node.name) for node in program.everything
                 if (meets := RECORDS[type(node)].limits.get(limit)) is not None and meets(program, node)]
        if names:
            met.append(f"{limit} ({', '.join(names)})")
    if met:
        raise LoweringError(f"profile {program.profile.name} has no definition of {'; '.join(met)}: change the model "
                            "there, or choose a profile that has, such as onnxruntime or tensorrt")
