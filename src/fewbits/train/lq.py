"""Numbers that are sums of a few learned ones: v · b, b of k signs (weights, a basis v per filter) or of k zeros and
ones (activations, one per layer). The basis follows the numbers by least squared error, a step in each forward pass.

Source: Zhang et al. 2018, arXiv:1807.10029 (LQ-Nets), §3.2 (quantizer), §3.3 and Algorithm 1 (QEM); the average of 0.9
that its released code takes over the steps.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor

from fewbits.errors import EncodingError
from fewbits.numerics.block import CHANNEL, TENSOR
from fewbits.numerics.formats import Format, Levels
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.plan import Site
from fewbits.train.from_weights import FromWeights

_KEPT = 0.9  # of a basis in each step
_LARGEST = 127
_QUARTILE = 0.6745  # of a standard normal distribution: half of its numbers lie within it
_PASSES = 100  # of the start, which ends when no code changes
_SINGULAR = 1e-6  # of the mean square of all codes: below it they say nothing of some number of the basis


def _signs(bits: int) -> Tensor:
    """Every row of `bits` signs: [2^bits, bits]."""
    return torch.tensor([*product((-1.0, 1.0), repeat=bits)], dtype=torch.float64)


def _switches(bits: int) -> Tensor:
    """Every row of `bits` zeros and ones: [2^bits, bits]."""
    return torch.tensor([*product((0.0, 1.0), repeat=bits)], dtype=torch.float64)


class _Bases:
    """Bases of some groups and the levels they make. basis: [groups, k]; codes: [2^k, k]; both float64."""

    def __init__(self, basis: Tensor, codes: Tensor):
        self.basis, self.codes = basis, codes.to(basis.device)
        self.levels, self.order = (basis @ self.codes.T).sort(1)
        """Ascending, [groups, 2^k]; and the code of each."""

    def places(self, x: Tensor) -> Tensor:
        """Of x, [groups, n], the places of the nearest levels; half way between two, of the lower one."""
        between = (self.levels[:, 1:] + self.levels[:, :-1]) / 2
        return torch.searchsorted(between.contiguous(), x.contiguous())

    def tally(self, x: Tensor) -> Tensor:
        """By group and code: how many numbers of x have it, and their sum; [2, groups, 2^k]."""
        groups, codes = self.levels.shape
        found = self.order.gather(1, self.places(x)) + codes * torch.arange(groups, device=x.device)[:, None]
        parts = [torch.bincount(found.reshape(-1), weights=weights, minlength=groups * codes).reshape(groups, codes)
                 for weights in (None, x.reshape(-1))]
        return torch.stack([part.double() for part in parts])

    def best(self, tally: Tensor) -> Tensor:
        """(B Bᵀ)⁻¹ B x, the basis of least squared error for the codes as they are: [groups, k]; where B Bᵀ has no
        inverse the basis as it is."""
        counts, sums = tally
        gram = torch.einsum("gc,ci,cj->gij", counts, self.codes, self.codes)
        known = torch.linalg.eigvalsh(gram)[:, 0] > _SINGULAR * counts.sum(1)
        solved = torch.linalg.solve(torch.where(known[:, None, None], gram, torch.eye(gram.shape[1]).to(gram)),
                                    sums @ self.codes)
        return torch.where(known[:, None], solved, self.basis)


Summed = Callable[[Tensor], Tensor]
"""The sum over all processes of what each has."""


def _alone(mine: Tensor) -> Tensor:
    return mine


def _moved(bases: _Bases, x: Tensor, summed: Summed = _alone) -> Tensor:
    """The basis a step on, the best one for the codes of x taken in by a tenth."""
    return _KEPT * bases.basis + (1 - _KEPT) * bases.best(summed(bases.tally(x)))


def _settled(bases: _Bases, x: Tensor, summed: Summed = _alone) -> Tensor:
    """The basis after whole steps until no code changes."""
    before = None
    for _ in range(_PASSES):
        tally = summed(bases.tally(x))
        if before is not None and torch.equal(tally, before):
            break
        before, bases = tally, _Bases(bases.best(tally), bases.codes)
    return bases.basis


class LearnedBasisWeights(FromWeights):
    """Sums of ±v_1 … ±v_k per tensor or output channel, k from 1 to 4 bits; the gradient is the identity's.

    Each basis starts at v_i = 2^i · 0.6745 σ / 2^(k−1), σ the root of the filter's mean square (the paper's
    start, whose σ is that of new weights), and takes steps until no code changes. In the program the
    largest level is 127 steps and the others are rounded to whole steps, in the simulation too.
    Raises EncodingError for other blocks, and for k that is no whole number from 1 to 4.
    """

    basis: Tensor

    def __init__(self, site: Site, k: float):
        super().__init__(site)
        if self.spec.block not in (TENSOR, CHANNEL):
            raise EncodingError(f"{site.name!r}: a basis serves a tensor or an output channel, not blocks of "
                                f"{self.spec.block}: use `block: tensor` or `block: channel`")
        if k not in (1, 2, 3, 4):
            raise EncodingError(f"{site.name!r}: a basis has 1 to 4 numbers, not {k:g}")
        self.bits = int(k)
        self.register_buffer("basis", torch.full((self.scale.numel(), self.bits), torch.nan))

    def codes_and_scale(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._rows(weight)
        self._begin(rows)
        bases = self._bases()
        steps, scale = self._steps(bases)
        return steps.gather(1, bases.places(rows)).reshape(weight.shape).to(weight.dtype), scale

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "simulate" and self.training and bool(torch.isfinite(x).all()):
            rows = self._rows(x.detach())
            self._begin(rows)
            self.basis.copy_(_moved(self._bases(), rows))
        return super().forward(x)

    def settle(self) -> None:
        """Sets the scale that the bases have after the last step."""
        if not self.basis.isnan().any():
            scale = self._steps(self._bases())[1]
            self.scale.copy_(torch.where(scale > 0, scale, torch.ones_like(scale)))

    def _rows(self, weight: Tensor) -> Tensor:
        return weight.double().reshape(len(self.basis), -1)

    def _bases(self) -> _Bases:
        return _Bases(self.basis.double(), _signs(self.bits))

    def _steps(self, bases: _Bases) -> tuple[Tensor, Tensor]:
        """(levels in whole steps, [groups, 2^k]; a step, of the shape of `scale`, 0 where all levels are)"""
        scale = (bases.levels.abs().amax(1, keepdim=True) / _LARGEST).float()
        steps = (bases.levels / torch.where(scale > 0, scale, torch.ones_like(scale))).round()
        return steps.clamp(-_LARGEST, _LARGEST), scale.reshape(self.scale.shape)

    def _begin(self, rows: Tensor) -> None:
        if not self.basis.isnan().any():
            return
        base = _QUARTILE * rows.square().mean(1, keepdim=True).sqrt() / 2 ** (self.bits - 1)
        basis = base * 2.0 ** torch.arange(self.bits, device=rows.device)
        self.basis.copy_(_settled(_Bases(basis, _signs(self.bits)), rows))


class LearnedBasisActivations(FakeQuantize):
    """Sums of v_1 … v_k, each taken or not: for 2 bits 0, v_1, v_2 and v_1 + v_2. The gradient is the identity's up to
    the highest level and 0 beyond it.

    The recipe's format counts the bits: `table(0,1,2,3)` has 2. The basis starts at what calibration found, evenly
    spaced; the first batch of training takes steps until no code changes. Raises EncodingError for formats that
    are not 2, 4, 8 or 16 levels from 0 in even steps, and for other blocks than the tensor.
    """

    basis: Tensor
    begun: Tensor

    def __init__(self, site: Site):
        super().__init__(site)
        format = self.spec.format
        self.bits = format.bits
        if (not isinstance(format, Levels) or self.spec.block != TENSOR or not 1 <= self.bits <= 4
                or format.numbers != tuple(range(2**self.bits))):
            raise EncodingError(f"tensor {site.name!r}: a basis of activations begins at even levels from 0, such as "
                                f"table(0,1,2,3) per tensor, not at {format} per {self.spec.block}")
        self.register_buffer("basis", torch.full((1, self.bits), torch.nan))
        self.register_buffer("begun", torch.tensor(False))

    def adopt(self, calibrated: FakeQuantize) -> None:
        super().adopt(calibrated)
        with torch.no_grad():
            self.basis.copy_(self.scale * 2.0 ** torch.arange(self.bits, device=self.scale.device))

    @property
    def format(self) -> Format:
        """The levels of the basis, in units of the largest magnitude among them."""
        if self.basis.isnan().any():
            return self.spec.format
        levels = self._bases().levels[0].cpu().numpy()
        numbers = np.unique((levels / float(abs(levels).max())).astype(np.float32))
        return Levels(tuple(numbers.tolist()), ties="down")

    def settle(self) -> None:
        """Sets the scale that the basis has after the last step."""
        largest = self._bases().levels.abs().max().float()
        if bool(largest > 0) and not torch.equal(largest, self.scale):  # the backward pass reads what stands there
            self.scale.copy_(largest)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "simulate":
            if self.training and bool(torch.isfinite(x).all()):
                self._follow(x.detach().double().reshape(1, -1))
            self.settle()
        return super().forward(x)

    def _follow(self, numbers: Tensor) -> None:
        summed = self.processes.summed
        if not self.begun:
            self.basis.copy_(_settled(self._bases(), numbers, summed))
            self.begun.fill_(True)
        self.basis.copy_(_moved(self._bases(), numbers, summed))

    def _bases(self) -> _Bases:
        return _Bases(self.basis.double(), _switches(self.bits))
