"""BinaryConnect: weights of -1 and 1, whose real shadow is kept within them.

Source: Courbariaux, Bengio and David 2015, arXiv:1511.00363. Every layer is binary, biases and batch norm are real,
the loss is the squared hinge.
"""

import torch

from fewbits.train.from_weights import FromWeights


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """clip((x + 1) / 2, 0, 1), eq. 3: the probability of 1 in the stochastic variant."""
    return ((x + 1) / 2).clamp(0, 1)


def sign(x: torch.Tensor) -> torch.Tensor:
    """1 where x ≥ 0, else -1 (eq. 1); torch.sign gives 0 at 0."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def squared_hinge(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of max(0, 1 − t · y)², t being 1 for the label and -1 for the other classes. outputs: [N, C]."""
    targets = torch.full_like(outputs, -1.0).scatter_(1, labels.reshape(-1, 1), 1.0)
    return (1 - targets * outputs).clamp(min=0).square().mean()


class BinaryConnect(FromWeights):
    """Deterministic: the sign, with the identity's gradient (§2.3)."""

    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return sign(weight), torch.ones_like(self.scale)

    def after_step(self, parameter: torch.Tensor) -> None:
        """Clips the shadow to [-1, 1] after each update (§2.4): beyond, it has no influence on the sign's future."""
        with torch.no_grad():
            parameter.clamp_(-1, 1)


class StochasticBinaryConnect(BinaryConnect):
    """1 with probability `hard_sigmoid(w)` while training (eq. 2). The paper then tests with the real weights, which
    are no longer binary: here evaluation and the program use the sign, as the deterministic variant does."""


    def codes_and_scale(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.training:
            return super().codes_and_scale(weight)
        draw = torch.rand(weight.shape, dtype=weight.dtype).to(weight.device)
        return torch.where(draw < hard_sigmoid(weight), 1.0, -1.0).to(weight.dtype), torch.ones_like(self.scale)
