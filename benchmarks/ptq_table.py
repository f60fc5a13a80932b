"""The page that `python -m benchmarks.ptq` writes: its cells as Markdown tables, and what was not run."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import groupby

from fewbits.report.machine import this_machine

_BAR = 0.5  # dB that bias correction and the best range rule may lie below min-max


def page(wanted: Sequence[tuple[str, str, str]], seeds: Sequence[int], cache: Mapping[str, dict],
         peers: Sequence[str]) -> str:
    """wanted: (network, setting, row) in the order of the tables; cache: cells, each with its `row`; peers: the rows of
    other tools."""
    found = {tuple(cell["row"]): cell for cell in cache.values() if "row" in cell}
    lines, missing = [_PREFACE.format(machine=this_machine())], []
    for network, rows in groupby(wanted, key=lambda row: row[0]):
        rows = list(rows)
        lines += [f"\n## {network}\n", "| setting | repair | SQNR, dB (each seed) | flips | accuracy change, 95 % "
                  "| CPU s | note |", "|---|---|---|---|---|---|---|"]
        for row in rows:
            cells = [found[*row, seed] for seed in seeds if (*row, seed) in found]
            if cells:
                lines.append(_line(row[1], row[2], cells))
            if len(cells) < len(seeds):
                missing.append(f"{' '.join(row)}: {len(cells)} of {len(seeds)} seeds")
    lines += ["\n## Bars\n", *_bars([row for row in wanted if row[2] not in peers], seeds, found),
              "\n## Peers\n", *_beside(wanted, seeds, found, peers)]
    if missing:
        lines += ["\n## Not run\n", *(f"- {item}" for item in missing)]
    return "\n".join(lines) + "\n"


def _line(setting: str, repair: str, cells: list[dict]) -> str:
    each = ", ".join(f"{cell['sqnr']:.1f}" for cell in cells)
    flips = ", ".join(str(cell["flips"]) for cell in cells)
    intervals = "; ".join(f"{cell['low']:+.1f} … {cell['high']:+.1f}" for cell in cells)
    seconds = statistics.mean(cell["seconds"] for cell in cells)
    return (f"| {setting} | {repair} | **{_mean(cells):.1f}** ({each}) | {flips} of {cells[0]['images']} | "
            f"{intervals} | {seconds:.0f} | {cells[0]['note']} |")


def _mean(cells: Sequence[dict]) -> float:
    return statistics.mean(cell["sqnr"] for cell in cells)


def _bars(wanted: Sequence[tuple[str, str, str]], seeds: Sequence[int], found: Mapping[tuple, dict]) -> list[str]:
    """Each row beside min-max of the same network, setting and seeds: the widest loss and gain of its mean."""
    lines = []
    for name in dict.fromkeys(row for _, _, row in wanted if row != "min-max"):
        gains = []
        for network, setting, _ in (row for row in wanted if row[2] == name):
            both = [(found[network, setting, name, seed], found[network, setting, "min-max", seed]) for seed in seeds
                    if (network, setting, name, seed) in found and (network, setting, "min-max", seed) in found]
            if both:
                gains.append((_mean([cell for cell, _ in both]) - _mean([cell for _, cell in both]), network, setting))
        if gains:
            (least, *where), (most, *there) = min(gains), max(gains)
            verdict = "" if least >= -_BAR else f" (below the bar of −{_BAR} dB)"
            lines.append(f"- {name} against min-max: from {least:+.1f} dB ({', '.join(where)}){verdict} to "
                         f"{most:+.1f} dB ({', '.join(there)}), in {len(gains)} settings")
    return lines


def _beside(wanted: Sequence[tuple[str, str, str]], seeds: Sequence[int], found: Mapping[tuple, dict],
            peers: Sequence[str]) -> list[str]:
    """By network and setting: the best repair of ours, the best row of the peers, of those with every seed."""
    lines = []
    for network, setting in dict.fromkeys(row[:2] for row in wanted if row[2] in peers):
        means = {}
        for name in (row[2] for row in wanted if row[:2] == (network, setting)):
            cells = [found[network, setting, name, seed] for seed in seeds if (network, setting, name, seed) in found]
            if len(cells) == len(seeds):
                means[name] = _mean(cells)
        theirs = {name: mean for name, mean in means.items() if name in peers}
        ours = {name: mean for name, mean in means.items() if name not in peers}
        if ours and theirs:
            one, other = max(ours, key=lambda name: ours[name]), max(theirs, key=lambda name: theirs[name])
            lines.append(f"- {network}, {setting}: {one} {ours[one]:.1f} dB; the best peer, {other}, "
                         f"{theirs[other]:.1f}")
    return lines


_PREFACE = """# Accuracy without training

Written by `python -m benchmarks.ptq`. Each cell is an integer Program against its float network on the test images,
for three draws of the calibration images (seed 0 is the fixed split; of the 64 photographs the others take 48): mean
logit SQNR, images whose top-1 class changed, and the exact paired 95 % interval of the accuracy's change in points (one
for each seed). Weights symmetric, activations asymmetric per tensor, restricted scale (max/127), batch norm folded,
profile onnxruntime, first and last layer as all others.

"best range" is the pair of weight and activation rules, out of minmax, mse (weights; minmax alone at 8 bits) and
minmax, percentile(99.99), mse, kl (activations), with the highest SQNR on other calibration images of seed 0 than those
it was calibrated on (256 of each for CIFAR-10, 32 for photographs). "+ equalization + bias correction" builds on it;
"best range + bias correction" leaves equalization out, which weights with a scale per channel do not need (a row added
after the peers' figures had been seen).
Bias correction and learned rounding see 512 CIFAR-10 images or the 64 photographs; AdaRound and block reconstruction
run 400 iterations a layer or block. CPU seconds are of quantizing and repairing, one thread, on a shared machine. The
range rules were not chosen on test images. AdaRound's weight λ was first tried at 0.1, 1 and 10 with test figures in
view, then chosen among 1 to 30 by training images outside calibration, where 10 was best too: take its figures with
that in mind. ONNX Runtime's rows: `quantize_static`, QDQ, weights per channel, uint8 activations, defaults otherwise
(its output logits are rounded to 8 bits too), on the same batches. NNCF's: `nncf.quantize`, preset mixed, all batches,
defaults otherwise, run as the simulation that it gives.

{machine}
"""
