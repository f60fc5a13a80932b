"""`python -m benchmarks.aimet_encodings`: encodings files of ours, read by AIMET: which of its readers takes which
schema, and how many codes it then gives that are not ours.

For each network and recipe a simulation is calibrated, its encodings are written in each schema and layout, AIMET reads
the file into a simulation of the float network that it has made itself, and each of its quantizers is given the very
numbers that ours is given. Needs `aimet-torch` and `aimet-onnx` 2.42 (not among the extras: they ask for torchvision,
which has no build beside the torch used here; stand-ins of its names will do).
"""

import importlib.util
import itertools
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fewbits as fb
from fewbits.encodings.aimet import Layout, Version
from fewbits.errors import FewbitsError
from fewbits.quant.fake_quantize import FakeQuantize
from fewbits.quant.simulation import Simulation
from fewbits.report.machine import this_machine

READERS: list[tuple[str, Version, Layout]] = [
    ("aimet_torch", "0.6.1", "modules"), ("aimet_torch", "1.0.0", "modules"), ("aimet_torch", "1.0.0", "tensors"),
    ("aimet_torch", "2.0.0", "tensors"), ("aimet_onnx", "0.6.1", "tensors"), ("aimet_onnx", "1.0.0", "tensors"),
    ("aimet_onnx", "2.0.0", "tensors")]
RECIPES = {"w8a8": {}, "w4a8": {"format": "int4"}, "narrow": {"format": "int8-narrow"}, "per tensor":
           {"block": "tensor"}, "zero points": {"symmetric": False}}


class Branches(nn.Module):
    """A residual addition, with a pooling that passes codes on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.last, self.pool, self.flat = nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        self.head = nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        return self.head(self.flat(self.pool(self.last(self.second(x) + x))))


def networks() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Five, small, in evaluation mode, with a batch each."""
    torch.manual_seed(0)
    image = torch.randn(16, 2, 8, 8)
    yield "convolution", nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval(), image
    yield "deep", nn.Sequential(*[part for _ in range(4) for part in (nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())],
                                nn.Flatten(), nn.Linear(128, 4)).eval(), image
    yield "depthwise", nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(),
                                     nn.Conv2d(8, 4, 1)).eval(), image
    yield "perceptron", nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh(),
                                      nn.Linear(16, 3)).eval(), torch.randn(64, 20)
    yield "branches", Branches().eval(), image


def simulated(net: nn.Module, x: torch.Tensor, weights: dict[str, Any]) -> Simulation:
    """Our simulation of a network, its outputs quantized."""
    given = {"format": "int8", "symmetric": True, "block": "channel", **weights}
    recipe = fb.Recipe.model_validate({"version": 1, "weights": given, "activations": "uint8", "outputs": "quantized"})
    model = fb.fold(fb.capture(net, x))
    return fb.calibrate(model, fb.plan(model, recipe), [x])


Codes = Callable[[np.ndarray], np.ndarray]


def in_torch(net: nn.Module, x: torch.Tensor, sim: Simulation, version: Version, layout: Layout,
             folder: Path) -> dict[str, Codes]:
    """AIMET's quantizers after its torch package read our file, by our names: numbers to numbers."""
    from aimet_torch import QuantizationSimModel  # pyright: ignore[reportMissingImports]
    from aimet_torch.common.quantsim_config.utils import (  # pyright: ignore[reportMissingImports]
        get_path_for_per_tensor_config,
    )

    fb.save_encodings(sim, folder / "net.encodings", version, layout=layout)
    per_tensor = all(not each.encoding.scale.ndim for each in sim.quantizers() if each.kind == "weight")
    theirs = QuantizationSimModel(net, x, config_file=get_path_for_per_tensor_config() if per_tensor else None)
    theirs.load_encodings(str(folder / "net.encodings"), partial=False)
    found: dict[str, Any] = {}
    modules = dict(theirs.model.named_modules())
    for quantizer in sim.quantizers():
        node = next((each for each in sim.model.graph.nodes if each.name == quantizer.site), None)
        if quantizer.kind == "weight":
            module, _, name = quantizer.site.rpartition(".")
            found[quantizer.site] = modules[module].param_quantizers[name]
        elif quantizer.kind == "input":
            reader = next(each for each in sim.model.graph.nodes if quantizer.site in each.refs and each.module)
            found[quantizer.site] = modules[reader.module].input_quantizers[reader.refs.index(quantizer.site)]
        elif node is not None and node.module in modules:
            found[quantizer.site] = modules[node.module].output_quantizers[0]

    def codes(quantizer: Any) -> Codes:
        return lambda values: quantizer(torch.from_numpy(values)).detach().numpy()

    return {site: codes(each) for site, each in found.items() if each is not None}


def in_onnx(net: nn.Module, x: torch.Tensor, sim: Simulation, version: Version, layout: Layout,
            folder: Path) -> dict[str, Codes]:
    """The same of its ONNX package, on the float network as torch exports it."""
    import onnx
    from aimet_onnx.quantsim import (  # pyright: ignore[reportMissingImports]
        QuantizationSimModel,
        load_encodings_to_sim,
    )

    torch.onnx.export(net, (x,), str(folder / "net.onnx"), input_names=["input"], dynamo=False)
    model = onnx.load(str(folder / "net.onnx"))
    made = {node.name.rpartition("/")[0].strip("/").replace("/", "."): node.output[0] for node in model.graph.node}
    names = {node.name: made[node.module] for node in sim.model.graph.nodes if node.module in made}
    names |= {quantizer.site: "input" for quantizer in sim.quantizers() if quantizer.kind == "input"}
    fb.save_encodings(sim, folder / "net.encodings", version, layout=layout, names=names)
    theirs = QuantizationSimModel(model)
    load_encodings_to_sim(theirs, str(folder / "net.encodings"), strict=False)

    def codes(quantizer: Any) -> Codes:
        return quantizer.quantize_dequantize

    return {quantizer.site: codes(theirs.qc_quantize_op_dict[names.get(quantizer.site, quantizer.site)])
            for quantizer in sim.quantizers()}


def compared(sim: Simulation, theirs: dict[str, Codes], x: torch.Tensor) -> tuple[int, int, list[str]]:
    """Codes compared, codes that differ, quantizers that AIMET has not."""
    given: dict[str, np.ndarray] = {}

    def note(module: FakeQuantize, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        given[module.site] = inputs[0].detach().numpy().copy()

    hooks = [each.register_forward_hook(note) for each in sim.quantizers()]
    with torch.no_grad():
        sim(x)
    for hook in hooks:
        hook.remove()
    count = differ = 0
    for quantizer in sim.quantizers():
        if quantizer.site not in theirs:
            continue
        encoding, values = quantizer.encoding, given[quantizer.site]
        ours = np.asarray(encoding.encode(values).dequantize())
        scale = encoding.block.expand(encoding.scale, values.shape) if encoding.scale.ndim else encoding.scale
        other = theirs[quantizer.site](np.ascontiguousarray(values))
        count += ours.size
        differ += int((np.rint(ours / scale) != np.rint(other / scale)).sum())
    return count, differ, [each.site for each in sim.quantizers() if each.site not in theirs]


def main() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("aimet_torch", "aimet_onnx")):
        raise FewbitsError("AIMET is not installed: pip install aimet-torch==2.42 aimet-onnx==2.42 in an environment "
                           "of its own, with stand-ins for torchvision")
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    print(f"{this_machine()}")
    for reader, version, layout in READERS:
        read = in_torch if reader == "aimet_torch" else in_onnx
        count = differ = files = 0
        missing: set[str] = set()
        refused: set[str] = set()
        for (name, net, x), (recipe, weights) in itertools.product(networks(), RECIPES.items()):
            sim = simulated(net, x, weights)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    theirs = read(net, x, sim, version, layout, Path(folder))
                except Exception as error:
                    refused.add(f"{type(error).__name__}: {str(error)[:100]}")
                    continue
            one, two, lacking = compared(sim, theirs, x)
            files, count, differ = files + 1, count + one, differ + two
            missing |= {f"{name}: {site}" for site in lacking}
            if two:
                print(f"  {name}, {recipe}: {two} of {one} differ")
        print(f"{reader}, schema {version} by {layout}: {files} files read, {differ} of {count} codes differ"
              f"{f'; refused: {sorted(refused)}' if refused else ''}"
              f"{f'; no quantizer there for {sorted(missing)}' if missing else ''}", flush=True)


if __name__ == "__main__":
    main()
