"""What a network expects of its data: how bytes become numbers, and where its classes begin."""

from dataclasses import dataclass

from fewbits.data.normalize import Normalize


@dataclass(frozen=True)
class Preparation:
    """Kept with a network, so that a saved one can be evaluated without saying it again.

    normalize: from bytes to float32, None where nothing is known (texts, float32 data); label_offset: what is added to
    the labels of data: 1 where the network's class 0 is the background and the data counts without it.
    """

    normalize: Normalize | None = None
    label_offset: int = 0

    def __str__(self) -> str:
        said = [] if self.normalize is None else [f"bytes are taken as {self.normalize}"]
        said += [f"class {self.label_offset} is label 0 of the data"] if self.label_offset else []
        return "; ".join(said) or "nothing is known of its data"
