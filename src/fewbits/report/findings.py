"""All that a report tells, as plain values: what the terminal and the page are made of."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from fewbits.engines.exactness import Exactness
from fewbits.report.accuracy import Comparison
from fewbits.report.energy import EnergyEstimate
from fewbits.report.engines import EngineAgreement
from fewbits.report.explain import Explanation
from fewbits.report.footprint import Footprint
from fewbits.report.latency import Latency
from fewbits.report.ledger import Ledger
from fewbits.report.machine import Machine
from fewbits.report.simulation_gap import SimulationGap
from fewbits.report.sites import SiteError
from fewbits.report.sizes import SizeItem


@dataclass(frozen=True)
class Findings:
    """One model, quantized and measured.

    images: how many tensors, gap and engines were measured on; comparison: None where no labelled images
    were given; float_bytes: of the float model as safetensors; sizes: the parts of what `stored` names, a
    file that was written or the tensors that any file must hold; explanation: where one was asked for;
    exactness: on which processors ONNX Runtime computes the exported file, None where it does not compute the profile;
    inside: tensors inside of recurrences, which are not among `sites`.
    """

    model: str
    recipe: str
    images: int
    comparison: Comparison | None
    ledger: Ledger
    sites: tuple[SiteError, ...]
    gap: SimulationGap
    engines: tuple[EngineAgreement, ...]
    latency: Latency | None
    energy: tuple[EnergyEstimate, ...]
    footprint: Footprint
    float_bytes: int
    sizes: tuple[SizeItem, ...]
    stored: str
    machine: Machine
    explanation: Explanation | None = None
    exactness: Exactness | None = None
    inside: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Sum of `sizes`."""
        return sum(item.bytes for item in self.sizes)

    @property
    def compared_codes(self) -> int:
        """Codes compared with engines that promise equality."""
        return sum(engine.compared for engine in self.engines if engine.exact)

    @property
    def mismatches(self) -> int:
        """Of those, the codes that differ: 0, or the engines do not compute the Program."""
        return sum(engine.differing for engine in self.engines if engine.exact)

    def summary(self) -> dict[str, float | int | None]:
        """The figures of the demo's summary.json. Accuracies are shares (0 to 1), None without labels;
        energy in picojoules of one input by the 45 nm table, bytes from on-chip memory; memory in bytes of one input
        (report/footprint.py); times are median milliseconds of one batch of `latency.batch`, None where no engine
        here computes the profile."""
        seen = self.comparison
        return {
            "float_accuracy": seen.float_accuracy.mean if seen else None,
            "accuracy": seen.accuracy.mean if seen else None,
            "samples": seen.samples if seen else None,
            "flips": seen.flips if seen else None,
            "float_bytes": self.float_bytes,
            "bytes": self.bytes,
            "mismatches": self.mismatches,
            "compared_codes": self.compared_codes,
            "weight_memory": self.footprint.weight_memory,
            "activation_memory": self.footprint.activation_memory,
            "bops": self.footprint.bops,
            "float_energy_pj": self.energy[0].original.total[0],
            "energy_pj": self.energy[0].integers.total[0],
            "float_ms": self.latency.float_ms if self.latency else None,
            "ms": self.latency.ms if self.latency else None,
            "native_ms": self.latency.others.get("native") if self.latency else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as dicts, lists, texts and finite numbers; the summary under `summary`."""
        return asdict(self) | {"summary": self.summary()}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)
