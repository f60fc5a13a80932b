"""Matrix products of activations, and convolutions that find their input's range: calls Matmul and Dynamic
(native/fewbits.h; docs/numerics.md, eq. 11, 28 to 30)."""

from dataclasses import dataclass

import numpy as np

from fewbits.kernels import structs
from fewbits.kernels.calls import address
from fewbits.kernels.rescaling import Rescaling


@dataclass(frozen=True, eq=False)
class Matrices:
    """y = a · b over [batches, ...] of uint8; transposed: b is [batches, columns, depth]. One factor for all."""

    a_zero: int
    b_zero: int
    rescaling: Rescaling
    transposed: bool = False

    def struct(self, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> structs.Matmul:
        """A batch of 1 stands for all of the other's."""
        batches, depth = max(len(a), len(b)), a.shape[2]
        return structs.Matmul(op=structs.MATMUL, b_transposed=self.transposed, a=address(a), b=address(b), y=address(y),
                              rescale=self.rescaling.struct(), a_zero=self.a_zero, b_zero=self.b_zero, batches=batches,
                              rows=a.shape[1], depth=depth, columns=b.shape[1 if self.transposed else 2],
                              a_step=a[0].size if len(a) > 1 else 0, b_step=b[0].size if len(b) > 1 else 0)

    def reference(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """[batches, rows, columns]."""
        left, right = a.astype(np.int64) - self.a_zero, b.astype(np.int64) - self.b_zero
        return self.rescaling.reference(left @ (right.swapaxes(1, 2) if self.transposed else right))
