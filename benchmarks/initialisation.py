"""Where k-means starts, over 2 to 8 bits, before and after fine-tuning: Deep Compression's study on a real network.

    python -m benchmarks.initialisation --network lenet5 --weights FILE --data mnist:DIR --out study.json

Every layer is shared, not pruned. Errors are in % of the test images; nothing is chosen by them. Prints a table in
Markdown, and with --out writes all figures.
"""

import argparse
import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewbits.artifact.weights import WeightsFile, weights_bytes
from fewbits.compress.flow import Settings, prunable, tune_codebooks
from fewbits.compress.share import Method, share
from fewbits.compress.tune import Codebooks
from fewbits.data.sets import load
from fewbits.data.split import Split
from fewbits.data.weights import apply_weights, load_weights
from fewbits.report.accuracy import evaluate
from fewbits.tasks.registry import resolve

METHODS: tuple[Method, ...] = ("random", "density", "linear", "k-means++", "optimal")


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown: a line a bit width, a column a start; squared error, then test error before → after fine-tuning."""
    lines = ["| bits | " + " | ".join(METHODS) + " |", "|---" * (len(METHODS) + 1) + "|"]
    for bits in sorted({row["bits"] for row in rows}):
        cells = [f"{row['sse']:.4g}; {row['before']:.2f} → {row['after']:.2f}"
                 for row in rows if row["bits"] == bits]
        lines.append(f"| {bits} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=list(range(2, 9)))
    parser.add_argument("--images", type=int, default=10_000, help="the first of training, seen in each epoch")
    parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's, at first; it falls along a cosine")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    task, data = resolve(arguments.network), load(arguments.data)
    net = task.build().eval()
    apply_weights(net, load_weights(arguments.weights), str(arguments.weights))
    learning = data.train.take(min(arguments.images, len(data.train)))

    def error(model: torch.nn.Module, split: Split) -> float:
        return round(100 * (1 - evaluate(model.eval(), split.batches(500, task.normalize)).mean), 2)

    def epochs(number: int) -> Iterable[tuple[Tensor, Tensor]]:
        return learning.batches(64, task.normalize, torch.Generator().manual_seed(number))

    rows = []
    print(f"float: {error(net, data.test)} %")
    for bits in arguments.bits:
        k: int = 2**bits
        settings = Settings(dict.fromkeys(prunable(net), 1.0), dict.fromkeys(prunable(net), k),
                            tune_epochs=arguments.epochs, tune_rate=arguments.rate)
        for method in METHODS:
            weights = {name: dict(net.named_parameters())[name].detach().numpy() for name in prunable(net)}
            shared = {name: share(weight, k, method=method) for name, weight in weights.items()}
            sse = sum(float(((weights[name] - one.dense()) ** 2).sum()) for name, one in shared.items())
            model = copy.deepcopy(net)
            before = error(Codebooks(model, shared), data.test)
            tuned = tune_codebooks(model, shared, epochs, settings)
            file = WeightsFile.of_bytes(weights_bytes(model.state_dict(), tuned, "the study"))
            model.load_state_dict(file.state_dict())
            row = {"bits": bits, "start": method, "sse": round(sse, 4), "before": before,
                   "after": error(model, data.test), "bytes": file.size}
            rows.append(row)
            print(f"{bits} bits, {method}: {row}", flush=True)
    print(table(rows))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
