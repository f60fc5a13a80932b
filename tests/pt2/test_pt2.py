"""Files of torch.export: what was exported comes back, and nothing in a file is unpickled, evaluated or called."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves

import fewbits as fb
from fewbits.errors import CaptureError, FewbitsError, FileError
from fewbits.pt2.pt2 import read_pt2
from fewbits.testing import random_network


class Net(nn.Module):
    """Batch norm, an in-place call, a split, tied weights, buffers, a size, a constant, nested outputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.register_buffer("gain", torch.arange(1.0, 5.0), persistent=False)

    def forward(self, x):
        left, right = torch.relu_(self.norm(self.conv(x))).chunk(2, 1)
        y = torch.cat([left, right], 1).mean((2, 3))
        y = self.two(self.one(y)) * self.gain + torch.tensor([1.0, 2.0, 3.0, 4.0])
        return {"out": y.reshape(x.shape[0], -1), "both": [left, (right,)]}


def written(path: Path, net: nn.Module | None = None, example=None, moving: bool = True) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = (net or Net()).eval()
    given = (torch.randn(2, 3, 8, 8),) if example is None else example
    shapes = tuple({0: Dim.DYNAMIC} for _ in given) if moving else None
    torch.export.save(export(net, given, dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("pt2") / "net.pt2")


def test_what_was_exported_comes_back(tmp_path):
    torch.manual_seed(3)
    net, x = Net().eval(), torch.randn(5, 3, 8, 8)
    model = read_pt2(written(tmp_path / "a.pt2", net))
    expected, actual = net(x), model(x)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(actual), tree_leaves(expected), strict=True))
    direct = fb.capture(net, x)
    assert [(n.name, n.target, n.module, n.source, n.shape) for n in model.graph.nodes] == [
        (n.name, n.target, n.module, n.source, n.shape) for n in direct.graph.nodes]
    assert model.graph.structure == direct.graph.structure and model.graph.inputs == direct.graph.inputs
    assert set(net.state_dict()) <= set(model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in net.parameters()), "tied once"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore")
def test_random_networks_come_back(tmp_path, seed):
    net, example = random_network(seed)
    given = example if isinstance(example, tuple) else (example,)
    model = read_pt2(written(tmp_path / "a.pt2", net, given))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(tree_leaves(model(*given)), tree_leaves(net(*given)), strict=True))


def test_it_goes_the_whole_way_and_gives_the_codes_of_the_module(tmp_path):
    torch.manual_seed(1)
    net, x = Net().eval(), torch.randn(4, 3, 8, 8)
    path = written(tmp_path / "a.pt2", net)
    codes = [fb.quantize(given, x, [x]).codes(x) for given in (net, read_pt2(path))]
    assert all(torch.equal(a, b) for a, b in zip(tree_leaves(codes[0]), tree_leaves(codes[1]), strict=True))
    model = fb.capture(path, x)
    assert model.training is False and len(model.graph.nodes) == len(fb.capture(net, x).graph.nodes)
    with pytest.raises(CaptureError, match=r"input 'x' of the example is torch.float32 \[4, 3, 9, 9\]"):
        fb.capture(path, torch.zeros(4, 3, 9, 9))
    with pytest.raises(CaptureError, match="no submodules to call"):
        fb.capture(path, x, parts=["conv"])


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def forged(file: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out


def edited(change: Callable[[dict], None], name: str = "net/models/model.json") -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        document = json.loads(members[name])
        change(document)
        members[name] = json.dumps(document).encode()

    return apply


def nodes(document: dict) -> list[dict]:
    return document["graph_module"]["graph"]["nodes"]


def call(target: str) -> Callable[[dict[str, bytes]], None]:
    return edited(lambda d: nodes(d)[1].update(target=target))


def argument(value: dict) -> Callable[[dict[str, bytes]], None]:
    return edited(lambda d: nodes(d)[1]["inputs"][3].update(arg=value))


WEIGHTS = "net/data/weights/model_weights_config.json"
CONSTANTS = "net/data/constants/model_constants_config.json"


@pytest.mark.parametrize(("change", "words"), [
    (call("torch.load"), "calls 'torch.load'"),
    (call("torch.hub.load"), "calls 'torch.hub.load'"),
    (call("_operator.attrgetter"), "calls '_operator.attrgetter'"),
    (call("torch.ops.aten.from_file.default"), "calls 'torch.ops.aten.from_file"),
    (call("torch.ops.aten.save.default"), "calls 'torch.ops.aten.save"),
    (call("torch.ops.aten._batch_norm_no_update.default"), "calls 'torch.ops.aten._batch_norm_no_update.default'"),
    (call("torch.ops.aten._native_batch_norm_legit.no_stats"), "none of it was run"),  # ends the process, run with -1
    (call("torch.ops.aten.resize_.default"), "calls 'torch.ops.aten.resize_.default'"),
    (call("torch.ops.aten.as_strided.default"), "calls 'torch.ops.aten.as_strided.default'"),
    (call("torch.ops.higher_order.cond"), "calls 'torch.ops.higher_order.cond'"),
    (call("#mine.op"), "calls '#mine.op'"),
    (argument({"as_graph": {"name": "g", "graph": {}}}), "a graph, which is not read"),
    (argument({"as_operator": "torch.load"}), "a operator, which is not read"),
    (argument({"as_custom_obj": {"name": "g", "class_fqn": "os.system"}}), "a custom obj, which is not read"),
    (argument({"as_tensor": {"name": "later"}}), "reads 'later' before anything made it"),
    (edited(lambda d: nodes(d)[1]["inputs"][3].update(name="x=1);boom(")), "an argument"),
    (edited(lambda d: nodes(d)[2]["outputs"][0]["as_tensor"].update(name="x")), "uses the name 'x' twice"),
    (edited(lambda d: d["schema_version"].update(major=9)), "schema 9"),
    (edited(lambda d: d["config"]["conv.bias"].update(use_pickle=True), WEIGHTS), "keeps 'conv.bias' pickled"),
    (edited(lambda d: d["config"]["gain"].update(use_pickle=True), CONSTANTS), "keeps 'gain' pickled"),
    (edited(lambda d: d["config"]["conv.bias"].update(path_name="../../x"), WEIGHTS), "keeps a tensor in '../../x'"),
    (edited(lambda d: d["config"].pop("conv.bias"), WEIGHTS), "lacks the values of 'conv.bias'"),
    (edited(lambda d: d["config"]["conv.bias"]["tensor_meta"].update(sizes=[{"as_int": 2**40}]), WEIGHTS),
     "fewer than its shape"),
    (edited(lambda d: d["config"]["conv.bias"]["tensor_meta"].update(
        sizes=[{"as_int": 2**30}], strides=[{"as_int": 0}]), WEIGHTS), "repeats the numbers of 'conv.bias'"),
    (edited(lambda d: d["config"].update({f"again{i}": d["config"]["conv.weight"] | {"is_param": False, "tensor_meta":
        d["config"]["conv.weight"]["tensor_meta"] | {"requires_grad": i}} for i in range(50000)}), WEIGHTS),
     "gives other names and shapes to the same stored numbers"),
    (edited(lambda d: d["config"]["conv.bias"]["tensor_meta"].update(strides=[{"as_int": -1}]), WEIGHTS), "not dense"),
    (edited(lambda d: d["config"]["conv.bias"]["tensor_meta"].update(sizes=[{"as_expr": {"expr_str": "boom()"}}]),
            WEIGHTS), "not a number"),
    (edited(lambda d: d.pop("graph_module")), "damaged"),
    (lambda members: members.update({"net/models/model.json": b"[" * 100_000}), "damaged"),
    (lambda members: members.pop("net/models/model.json"), "no exported program"),
    (lambda members: members.pop("net/archive_version"), "no archive of torch.export.save"),
    (lambda members: members.update({"net/data/aotinductor/model/a.so": b"ELF"}), "compiled code"),
    (lambda members: members.update({"serialized_exported_program.json": b"{}"}), "torch 2.7 or older"),
])
def test_what_could_run_code_is_refused_by_name(file, tmp_path, change, words):
    path = forged(file, tmp_path / "forged.pt2", change)
    with pytest.raises(FileError, match=r"forged\.pt2") as caught:
        read_pt2(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("sizes", "words"), [
    ([2, 3, 8, 2**40], "'x' makes 52776558133248 numbers of a batch of 2"),
    ([2, 5, 8, 8], "gives shape [2, 4, 8, 8] for a batch of 2, and the graph says [2, 5, 8, 8]"),
])
def test_shapes_that_a_file_states_are_checked_before_anything_is_computed(file, tmp_path, sizes, words):
    def lie(document: dict) -> None:
        values = document["graph_module"]["graph"]["tensor_values"]
        name = "x" if sizes[-1] > 8 else nodes(document)[1]["outputs"][0]["as_tensor"]["name"]
        values[name]["sizes"] = [values[name]["sizes"][0], *({"as_int": size} for size in sizes[1:])]

    with pytest.raises(CaptureError) as caught:
        read_pt2(forged(file, tmp_path / "lying.pt2", edited(lie)))
    assert words.replace("[2, 5", "[None, 5") in str(caught.value)


def test_pickles_sizes_and_guards_in_a_file_are_never_opened(file, tmp_path):
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    code = f"open({str(mark)!r}, 'w')"
    buffer = io.BytesIO()
    torch.save(Bomb(mark), buffer)

    def plant(members: dict[str, bytes]) -> None:
        members["net/data/sample_inputs/model.pt"] = buffer.getvalue()
        members["net/data/constants/opaque_obj_0"] = bomb
        text = members["net/models/model.json"].decode()
        document = json.loads(text.replace("Symbol('s77', positive=True, integer=True)", code.replace('"', "'")))
        document["guards_code"] = [code]
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = code
        members["net/models/model.json"] = json.dumps(document).encode()

    path = forged(file, tmp_path / "planted.pt2", plant)
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(fb.capture(path, x)(x)["out"], read_pt2(file)(x)["out"])
    assert not mark.exists()


def test_a_fixed_batch_and_a_moving_image_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"takes 'x' in shape \[2, 3, 8, 8\]: export it with a batch that moves"):
        read_pt2(written(tmp_path / "fixed.pt2", moving=False))
    net, x = nn.Conv2d(3, 3, 3), (torch.randn(2, 3, 8, 8),)
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC},)
    torch.export.save(export(net, x, dynamic_shapes=shapes), tmp_path / "moving.pt2")
    with pytest.raises(FileError, match="and nothing else"):
        read_pt2(tmp_path / "moving.pt2")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.999])
def test_cut_and_foreign_files(file, tmp_path, at):
    data = file.read_bytes()
    (tmp_path / "cut.pt2").write_bytes(data[:int(at * len(data))])
    with pytest.raises(FileError, match=r"cut\.pt2"):
        read_pt2(tmp_path / "cut.pt2")


@pytest.mark.parametrize("at", [0.01, 0.1, 0.3, 0.5, 0.7])  # 0.9 lies in the sample inputs
def test_a_flipped_byte_is_refused(file, tmp_path, at):
    flipped = bytearray(file.read_bytes())
    flipped[int(at * len(flipped))] ^= 255
    (tmp_path / "flipped.pt2").write_bytes(flipped)
    with pytest.raises(FewbitsError, match=r"flipped\.pt2"):
        read_pt2(tmp_path / "flipped.pt2")


def test_missing_files():
    with pytest.raises(FileError, match=r"gone\.pt2 does not exist"):
        fb.capture("gone.pt2", torch.zeros(2, 3))
