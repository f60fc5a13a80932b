"""Several processes that calibrate or train one network together, as `torchrun` starts them.

The engine is torch.distributed: gloo between CPUs, NCCL between GPUs. Every process runs the same program; process 0
writes files.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewbits.errors import DataError, TrainingError


@dataclass(frozen=True)
class Processes:
    """rank: of this one, from 0; count: of all. With a count of 1 every method gives back what it is given."""

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and shows progress."""
        return self.rank == 0

    def share(self, number: int) -> range:
        """Of so many things in order those of this process: neighbours, and each process's behind the former's."""
        return range(self.rank * number // self.count, (self.rank + 1) * number // self.count)

    def part(self, x: Tensor) -> Tensor:
        """This process's rows of a batch. Raises DataError for fewer rows than there are processes."""
        if self.count == 1:
            return x
        if len(x) < self.count:
            raise DataError(f"a batch of {len(x)} does not give each of {self.count} processes something: take larger "
                            "batches, or fewer processes")
        rows = self.share(len(x))
        return x[rows.start:rows.stop]

    def gathered(self, mine: Any) -> list[Any]:
        """What every process has, in order of rank."""
        if self.count == 1:
            return [mine]
        everyones: list[Any] = [None] * self.count
        with ended_elsewhere():
            dist.all_gather_object(everyones, mine)
        return everyones

    def whole(self, x: Tensor) -> Tensor:
        """The batch of which each process has its `part`, on this one's device."""
        return x if self.count == 1 else torch.cat([each.to(x.device) for each in self.gathered(x.detach().cpu())])

    def summed(self, x: Tensor) -> Tensor:
        """The sum over all processes."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def highest(self, x: Tensor) -> Tensor:
        """The largest of all processes, number by number."""
        return self._reduced(x, dist.ReduceOp.MAX)

    def lowest(self, x: Tensor) -> Tensor:
        """The smallest of all processes, number by number."""
        return self._reduced(x, dist.ReduceOp.MIN)

    def alike(self, net: nn.Module) -> None:
        """Gives the buffers of process 0 to all: running statistics of batch norms, which each takes from its part."""
        if self.count > 1:
            mine = {name: buffer.cpu() for name, buffer in net.named_buffers()} if self.writes else None
            kept = self.gathered(mine)[0]
            for name, buffer in net.named_buffers():
                buffer.copy_(kept[name])

    def _reduced(self, x: Tensor, operation: Any) -> Tensor:
        if self.count > 1:
            x = x.clone()
            with ended_elsewhere():
                dist.all_reduce(x, operation)
        return x


ALONE = Processes()


@contextmanager
def ended_elsewhere() -> Iterator[None]:
    """Around what waits for other processes. Raises TrainingError, in a sentence, where one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized():
            raise
        raise TrainingError("another process of this job has ended, and the rest cannot go on without it: start the "
                            "job again; with a checkpoint it goes on from there "
                            f"({str(error).splitlines()[0]:.200})") from error


@contextmanager
def joined(device: str = "cpu") -> Iterator[Processes]:
    """The processes that torchrun started, joined for as long as the context lasts; this one alone without torchrun.

    device: `cpu` or `cuda`, on which process n takes the n-th GPU of its machine.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or dist.is_initialized():
        yield ALONE if count == 1 else Processes(dist.get_rank(), dist.get_world_size())
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        with ended_elsewhere():
            dist.barrier()  # nobody leaves while another still speaks to it: gloo's threads end the process then
    finally:
        dist.destroy_process_group()
