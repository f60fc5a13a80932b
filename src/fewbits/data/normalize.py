"""From stored bytes to what a network was trained on."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fewbits.errors import DataError


@dataclass(frozen=True)
class Normalize:
    """(u8 / divide - mean) / std, one mean and std per channel or one for all.

    mean, std: in units of `divide` (so 0..1 for bytes over 255). bgr: turn the order of channels round first, so that
    mean and std are those of blue, green and red. Raises DataError when the lengths differ,
    a number is not finite, or a std or `divide` is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divide: float = 255.0
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        object.__setattr__(self, "divide", float(self.divide))
        if not self.mean or len(self.mean) != len(self.std):
            raise DataError(
                f"mean has {len(self.mean)} numbers and std {len(self.std)}; give one of each per channel."
            )
        if not all(map(math.isfinite, (*self.mean, *self.std, self.divide))):
            raise DataError(f"mean, std and divide must be finite, not {self}; give plain numbers.")
        if min(*self.std, self.divide) <= 0:
            raise DataError(f"std and divide must be above zero, not {self}; give positive numbers.")

    @classmethod
    def parse(cls, mean: str, std: str, divide: float = 255.0, bgr: bool = False) -> "Normalize":
        """Read text such as `0.485,0.456,0.406`. Raises DataError that quotes what is no number."""
        return cls(_numbers("mean", mean), _numbers("std", std), divide, bgr)

    def __str__(self) -> str:
        mean, std = (",".join(f"{number:g}" for number in numbers) for numbers in (self.mean, self.std))
        return f"(byte / {self.divide:g} - {mean}) / {std}{', blue first' if self.bgr else ''}"

    def __call__(self, x: Tensor) -> Tensor:
        """uint8 [N, C, ...] -> float32 of that shape. Raises DataError on another dtype or channel count."""
        if x.dtype != torch.uint8:
            raise DataError(f"Only uint8 data is normalised, not {x.dtype}; leave the Normalize out.")
        if len(self.mean) not in (1, x.shape[1]):
            raise DataError(
                f"The data has {x.shape[1]} channels and mean and std have {len(self.mean)} numbers; "
                "give one number per channel, or one for all."
            )
        shape = (1, len(self.mean)) + (1,) * (x.ndim - 2)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=x.device).reshape(shape)
        std = torch.tensor(self.std, dtype=torch.float32, device=x.device).reshape(shape)
        x = x.flip(1) if self.bgr else x
        return x.to(torch.float32).div_(self.divide).sub_(mean).div_(std)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"{name} {text!r} is not a list of numbers; write it as 0.485,0.456,0.406.") from None


DIGITS = Normalize((0.3053,), (0.3761,), divide=16.0)
MNIST = Normalize((0.1307,), (0.3081,))
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SYMMETRIC = Normalize((1.0,), (1.0,), divide=127.5)
"""Bytes to -1..1, as TensorFlow's MobileNets take them: u8/127.5 - 1."""
CAFFE_CIFAR = Normalize((125.3, 123.0, 113.9), (1.0, 1.0, 1.0), divide=1.0)
"""Bytes minus the mean colour of CIFAR-10's training images; Caffe subtracts the mean image."""
CAFFE_IMAGENET = Normalize((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), divide=1.0, bgr=True)
"""Blue, green and red bytes minus their mean, as Caffe's ImageNet networks take them."""
