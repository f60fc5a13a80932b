"""What each stage of Deep Compression leaves of each layer, beside the paper's, and where the bytes of the file go.

Both tables are text, the heading first; they take what `deep_compression.compress` measured, once for each seed, and
give means. Source of the paper's figures: Han, Mao and Dally 2016, arXiv:1510.00149, Tables 2 and 3.
"""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

Rows = list[tuple[str, ...]]

_PAPER = {
    "lenet_300_100": ((8, 3.1, 2.32), (9, 3.8, 3.04), (26, 15.7, 12.70), (8, 3.1, 2.49)),
    "lenet_caffe": ((66, 78.5, 67.45), (12, 6.0, 5.28), (8, 2.7, 2.45), (19, 6.9, 6.13), (8, 3.05, 2.55)),
}
"""By network: layer by layer, then in all: weights kept, and bytes after sharing and after coding, in %."""


def by_layer(found: Sequence[Mapping[str, Any]]) -> Rows:
    """A row a layer and one for the whole file: weights kept, then bytes after each stage in % of four for each weight.

    The paper's in brackets. Pruned and shared as the paper counts them: gaps of five bits, and codes of whole bits;
    coded: what stands in the file; entropy: the bound of its codes and gaps. The last row counts biases and header too.
    """
    table: Rows = [("layer", "weights", "kept, %", "pruned, %", "shared, %", "coded, %", "entropy, %")]
    *paper, whole = _PAPER[found[0]["settings"]["network"]]
    layers = [one["layers"] for one in found]
    weights = {name: layer["weights"] for name, layer in layers[0].items()}
    for name, published in zip(weights, paper, strict=False):
        stages = [100 * mean(each[name][stage] for each in layers) / (4 * weights[name])
                  for stage in ("pruned", "shared", "coded", "entropy")]
        kept = 100 * mean(each[name]["density"] for each in layers)
        table.append(_row(name, weights[name], kept, stages, published))
    total = sum(weights.values())
    kept = 100 * mean(sum(weights[name] * each[name]["density"] for name in weights) / total for each in layers)
    stages = [100 * mean(1 / one[figure] for one in found)
              for figure in ("times_smaller_pruned", "times_smaller_shared", "times_smaller")]
    table.append(_row("the whole file", total, kept, stages, whole))
    return table


def _row(name: str, weights: int, kept: float, stages: Sequence[float], paper: Sequence[float]) -> tuple[str, ...]:
    pruned, shared, coded, *entropy = stages
    return (name, str(weights), f"{kept:.1f} ({paper[0]:g})", f"{pruned:.2f}", f"{shared:.2f} ({paper[1]:g})",
            f"{coded:.2f} ({paper[2]:g})", f"{entropy[0]:.2f}" if entropy else "")


def by_part(found: Sequence[Mapping[str, Any]]) -> Rows:
    """A row a part of the file: bytes, and its share in %."""
    whole = mean(one["bytes"] for one in found)
    names = dict.fromkeys(name for one in found for name in one["parts"])
    sizes = {name: mean(one["parts"].get(name, 0) for one in found) for name in names}
    return [("part of the file", "bytes", "share, %"),
            *((name, f"{size:.0f}", f"{100 * size / whole:.1f}") for name, size in sizes.items())]


BY = {"layers": by_layer, "parts": by_part}
"""The tables, by the figures that they are made of."""
