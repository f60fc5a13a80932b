"""PROFIT on a small depthwise network, beside plain LSQ for as many epochs.

Both begin with one float network, trained here. PROFIT learns in three parts: all layers, then without the third whose
outputs their quantization moves most, then without two thirds. Chosen with seed 0 on training images 8000 to 9999,
accuracy there in %: float 56.9 after 8 epochs, 67.3 after 24; LSQ 66.8 after 6 epochs at 4 bits. DuQ's first part of 2
epochs ends at 63.3 (the authors' start), of 4 at 66.2 (least squared error). Two further parts of an epoch lead to 63.9
at half the rate, to 65.4 without freezing, and to 66.5 at a tenth of it. The paper's last step, batch norm statistics
taken anew, lost 0.2 on average over 14 such networks, and is left out.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from fewbits.capture.capture import capture
from fewbits.data.normalize import IMAGENET
from fewbits.data.shifted import Mirrored, Shifted
from fewbits.data.split import Split
from fewbits.engines.executable import Executable
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.simulation import Simulation
from fewbits.report.accuracy import compare
from fewbits.reproduce.few_bits import codes
from fewbits.reproduce.row import Given, Log, Row
from fewbits.reproduce.together import counted
from fewbits.tasks.few_bit_nets import depthwise_cifar
from fewbits.tasks.training import initialised
from fewbits.train.fit import Adam, WarmedCosine, fit
from fewbits.train.profit import activation_instability, freeze, least_stable
from fewbits.train.registry import trainable

_SAVED = 200  # steps between checkpoints


@dataclass(frozen=True)
class Freezing:
    """float_epochs; epochs: of each of PROFIT's three parts, plain LSQ having all three in one; rate: of LSQ and of the
    first part; slower: what share of it the other parts have; sampled: steps by which the instability is measured;
    held_out: training images at the end that nothing learns from, on which settings were chosen; tested: as many before
    them, which nothing learns from either and which join the test images."""

    float_epochs: int = 24
    epochs: tuple[int, int, int] = (4, 1, 1)
    sampled: int = 40
    rate: float = 2e-3
    slower: float = 0.1
    batch_size: int = 64
    held_out: int = 2000
    tested: int = 2000


class _Learning:
    """The images that one run learns from."""

    def __init__(self, freezing: Freezing, given: Given):
        self.freezing, self.given = freezing, given
        train, test = given.data.train, given.data.test
        learned = len(train) - freezing.held_out - freezing.tested
        self.learned = train.take(learned)
        more = train.subset(range(learned, learned + freezing.tested))
        assert more.y is not None and test.y is not None, "classes are learned"
        assert isinstance(more.x, Tensor) and isinstance(test.x, Tensor), "CIFAR-10 is bytes"
        self.tested = Split(torch.cat([test.x, more.x]), torch.cat([test.y, more.y]))

    def batches(self) -> Mirrored:
        """Moved by up to two pixels and mirrored by chance."""
        def seeded() -> torch.Generator:
            return torch.Generator().manual_seed(self.given.seed)

        plain = self.learned.batches(self.freezing.batch_size, IMAGENET, seeded())
        return Mirrored(Shifted(plain, 2, seeded()), seeded())

    def fit(self, net: nn.Module, epochs: int, stage: str, rate: float) -> None:
        """Trains `net` in place."""
        fit(net, self.batches(), epochs=epochs, optimizer=Adam(rate), schedule=WarmedCosine(), seed=self.given.seed,
            checkpoint=self.given.checkpoint(f"{self.given.row}-{stage}"), save_every=_SAVED)


def reproduce(freezing: Freezing, given: Given, log: Log) -> Mapping[str, Any]:
    """Accuracies in % of the tested images: `float`, `lsq` and `few bits` (PROFIT), as integer programs; PROFIT's 95 %
    interval less float, and its images gained and lost beside float and LSQ; codes compared and differing, of both."""
    data, learning = given.data, _Learning(freezing, given)
    net = initialised(depthwise_cifar, given.seed)
    log(f"training in float for {freezing.float_epochs} epochs")
    learning.fit(net, freezing.float_epochs, "float", 4e-3)
    calibration = data.calibration.inputs(128, IMAGENET)
    model = fold(capture(net.eval(), next(iter(calibration))), norms="keep")

    def begun(recipe: str) -> Simulation:
        mine = copy.deepcopy(model)
        return trainable(calibrate(mine, plan(mine, recipe), calibration))

    plain = begun("lsq-w4a4")
    learning.fit(plain, sum(freezing.epochs), "lsq", freezing.rate)
    frozen = begun("duq-w4a4")
    learning.fit(frozen, freezing.epochs[0], "duq", freezing.rate)
    measured = activation_instability(frozen.copy(), islice(learning.batches(), freezing.sampled))
    convolutions = {name: value for name, value in measured.items() if frozen.model.tensor(name).ndim == 4}
    for part, share in enumerate((1 / 3, 2 / 3)):
        still = least_stable(convolutions, share)
        log(f"frozen: {', '.join(still)}")
        frozen = freeze(frozen, still)
        learning.fit(frozen, freezing.epochs[1 + part], f"frozen-{part}", freezing.slower * freezing.rate)
    test = learning.tested.batches(250, IMAGENET)
    programs = [lower(simulation) for simulation in (plain, frozen)]
    gained = compare(Executable(programs[0]), Executable(programs[1]), test)
    beside = compare(net, Executable(programs[1]), test)
    compared = [codes(program, data, IMAGENET) for program in programs]
    return {"float": _percent(beside.float_accuracy.mean), "lsq": _percent(gained.float_accuracy.mean),
            "few bits": _percent(gained.accuracy.mean), "program": _percent(gained.accuracy.mean),
            "gap from": _percent(beside.interval[0]), "gap to": _percent(beside.interval[1]),
            **counted("program less float", beside), **counted("program less lsq", gained),
            **{key: sum(each[key] for each in compared) for key in compared[0]}}


def _percent(share: float) -> float:
    return round(100 * share, 4)


ROWS = (
    Row("profit-w4a4-depthwise", "PROFIT, 4-bit weights and activations, beside plain LSQ: a small depthwise network "
        "trained on 6000 CIFAR-10 images, tested on the 500 test images and on 2000 training images that nothing "
        "learned from or was chosen on", "Park and Yoo 2020, arXiv:2008.04693 (MobileNets on "
        "ImageNet: a small analogue)", {}, "cifar10:DIR", partial(reproduce, Freezing()), "duq-w4a4", 250),
)
