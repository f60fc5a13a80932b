"""The main job on real networks and real data: no code differs, and the accuracy is kept."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fewbits.artifact.file import sizes
from fewbits.artifact.save import save_verified
from fewbits.capture.capture import capture
from fewbits.data import normalize
from fewbits.data.sets import load
from fewbits.data.weights import apply_weights, load_weights
from fewbits.engines.executable import Executable
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.report.accuracy import compare
from fewbits.report.engines import agreement
from fewbits.report.simulation_gap import simulation_gap
from fewbits.tasks.lenet import lenet5
from fewbits.tasks.mobilenet_v2 import mobilenet_v2
from fewbits.tasks.resnet_cifar import resnet20

pytestmark = pytest.mark.shared


def quantized(net, calibration, recipe="w8a8", profile="onnxruntime"):
    model = fold(capture(net.eval(), next(iter(calibration))[:2]))
    simulation = calibrate(model, plan(model, recipe), calibration)
    return simulation, lower(simulation, profile)


def loaded(net, path):
    apply_weights(net, load_weights(path), path.name)
    return net.eval()


def assert_no_code_differs(program, batches):
    for row in agreement(program, batches, every_value=True):
        assert row.compared > 0
        if row.exact:
            assert row.differing == 0, str(row)


def share_of_the_float_file(program, net, folder):
    """Size of the .fewbits file over that of the float weights as safetensors."""
    save_verified(program, folder / "model.fewbits")
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / "float.safetensors")
    return (folder / "model.fewbits").stat().st_size / (folder / "float.safetensors").stat().st_size


def assert_simulation_is_near(program, simulation, batches):
    gap = simulation_gap(program, simulation, batches)
    assert gap.differing <= gap.compared / 10_000
    assert gap.largest <= 1


def test_lenet5_on_mnist(shared, tmp_path):
    data = load(f"mnist:{shared / 'data/mnist'}")
    net = loaded(lenet5(), shared / "data/mnist/lenet5_inhouse.pt")
    simulation, program = quantized(net, data.calibration.inputs(64, normalize.MNIST))
    test = data.test.batches(500, normalize.MNIST)
    comparison = compare(net, Executable(program), test)
    assert comparison.float_accuracy.mean == pytest.approx(0.9934, abs=2e-4)
    assert abs(comparison.difference) <= 0.001
    assert_no_code_differs(program, data.test.inputs(500, normalize.MNIST))
    assert_simulation_is_near(program, simulation, data.calibration.inputs(64, normalize.MNIST))
    save_verified(program, tmp_path / "lenet.fewbits")
    beside = [item for item in sizes(tmp_path / "lenet.fewbits") if item.part not in ("codes", "biases", "scales")]
    assert sum(item.bytes for item in beside) <= 16_000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_resnet20_on_cifar10(shared, seed, tmp_path):
    data = load(f"cifar10:{shared / 'data/cifar10'}")
    net = loaded(resnet20(), shared / "data/cifar10/resnet20-12fca82f.th")
    calibration = data.draw_calibration(seed).inputs(128, normalize.IMAGENET)
    simulation, program = quantized(net, calibration)
    comparison = compare(net, Executable(program), data.test.batches(100, normalize.IMAGENET))
    assert comparison.sqnr >= 28
    assert comparison.flips <= 0.02 * 500
    if seed == 0:
        test = data.test.inputs(100, normalize.IMAGENET)
        assert_no_code_differs(program, test)
        assert_simulation_is_near(program, simulation, test)
        assert share_of_the_float_file(program, net, tmp_path) <= 0.27


def photographs(shared, rows):
    folder = shared / "data/imagenet"
    names = [line.split(",")[0] for line in (folder / "nips17_dev200_labels.csv").read_text().splitlines()[1:]]
    images = []
    for name in names[rows]:
        image = Image.open(folder / "nips17_dev200" / (name if name.endswith(".png") else f"{name}.png")).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        images.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    return normalize.SYMMETRIC(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous())


@pytest.mark.parametrize(("recipe", "profile"), [("w8a8", "onnxruntime"), ("w7a8", "onnxruntime-portable")])
def test_mobilenet_v2_on_photographs(shared, recipe, profile, tmp_path):
    net = loaded(mobilenet_v2(), shared / "data/imagenet/mbv2_ptq_dequant.pt")
    simulation, program = quantized(net, photographs(shared, slice(0, 16)).split(8), recipe, profile)
    test = photographs(shared, slice(64, 80)).split(4)
    assert_no_code_differs(program, test)
    assert_simulation_is_near(program, simulation, test[:2])
    assert share_of_the_float_file(program, net, tmp_path) <= 0.27
