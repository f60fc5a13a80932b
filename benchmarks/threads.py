"""Many threads and workers that call one program: `python -m benchmarks.threads`.

32 threads of 1000 calls each, on every engine that is here, with batches of four sizes in an order of each thread;
then two forked and two spawned workers. Counts the calls whose codes were others than those of one thread.
"""

import multiprocessing
import random
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import typer
from torch import nn

import fewbits as fb
from fewbits.engines.registry import ENGINES

THREADS = 32
_SLOW = {"reference": 25}  # calls of a thread, where 1000 would take half an hour


def called(program: fb.QuantizedModel, inputs: Sequence[torch.Tensor], right: Sequence[torch.Tensor], calls: int,
           seed: int) -> int:
    """How many calls gave other codes."""
    order, wrong = random.Random(seed), 0
    for _ in range(calls):
        which = order.randrange(len(inputs))
        wrong += not torch.equal(program.codes(inputs[which]), right[which])
    return wrong


def _worker(answers: Any, *given: Any) -> None:
    answers.put(called(*given))


def main(calls: Annotated[int, typer.Option(help="Of each thread and worker")] = 1000) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(),
                        nn.Linear(288, 10)).eval()
    inputs = [torch.rand(count, 3, 8, 8) for count in (1, 2, 5, 17)]
    whole = fb.quantize(net, inputs[1], inputs, recipe="w7a8", profile="onnxruntime-portable")
    right = [fb.QuantizedModel(whole.program, "reference").codes(x).clone() for x in inputs]
    for name, make in ENGINES.items():
        if make().missing:
            print(f"{name}: not here")
            continue
        program, each, wrong = fb.QuantizedModel(whole.program, name), min(calls, _SLOW.get(name, calls)), []
        begun = time.process_time()

        def work(seed: int, program: fb.QuantizedModel = program, each: int = each, wrong: list[int] = wrong) -> None:
            wrong.append(called(program, inputs, right, each, seed))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wrong) == THREADS, f"{name}: a thread ended in an error"
        print(f"{name}: {THREADS} threads, {THREADS * each} calls, {sum(wrong)} wrong; "
              f"{time.process_time() - begun:.0f} s of the processor", flush=True)
    for method in ("fork", "spawn"):
        context: Any = multiprocessing.get_context(method)
        answers = context.Queue()
        workers = [context.Process(target=_worker, args=(answers, whole, inputs, right, calls, seed))
                   for seed in range(2)]
        for worker in workers:
            worker.start()
        found = sum(answers.get(timeout=600) for _ in workers)
        for worker in workers:
            worker.join()
        print(f"{method}: {len(workers)} workers, {len(workers) * calls} calls, {found} wrong", flush=True)


if __name__ == "__main__":
    typer.run(main)
