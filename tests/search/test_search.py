"""The search against exhaustive search, its cost models against the programs they speak of, and its log."""

import itertools
import json
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from math import prod
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fewbits.capture.capture import capture
from fewbits.cli.main import app
from fewbits.engines.executable import Executable
from fewbits.errors import CalibrationError, FileError, SearchError, UndecidedWarning
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.numerics.packing import packed_bytes
from fewbits.optimize.repairs import calibrate_and_repair
from fewbits.program import ops as op
from fewbits.quant.calibrate import calibrate
from fewbits.quant.planner import plan
from fewbits.quant.recipe import SpecText, recipe
from fewbits.report.ledger import ledger
from fewbits.report.sizes import stored_items
from fewbits.search import encodings
from fewbits.search.costs import COSTS
from fewbits.search.evaluations import Evaluations
from fewbits.search.greedy import tied
from fewbits.search.limit import Limit
from fewbits.search.noise import NoiseModel
from fewbits.search.problem import Problem
from fewbits.search.ristretto import WIDTHS, ristretto, ristretto_menu
from fewbits.search.search import (
    drawn,
    effects,
    front,
    search,
    search_greedily,
    search_mixed_precision,
    sensitivities,
    spread,
)
from fewbits.search.solver import solve
from fewbits.search.space import MENUS, Menu, Space, menu
from fewbits.workflow.search import learning


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
                            nn.Flatten(), nn.Linear(64, 5)).eval()
        x = torch.randn(64, 2, 4, 4)
    return fold(capture(net, x)), x


def few(widths=(8, 6, 4, 3)):
    whole = MENUS["int"]
    chosen = [8 - bits for bits in widths]
    return Menu(tuple(whole.weights[i] for i in chosen), tuple(whole.activations[i] for i in chosen))


def problem(candidates=None, labels=False, seed=0):
    model, x = network(seed)
    with torch.no_grad():
        y = model(x).argmax(1)
    samples = [(x, y)] if labels else [x]
    return Problem.of(Space.of(model, "w8a8", candidates or few()), [x], samples)


@pytest.fixture(scope="module")
def small():
    return problem()


def test_an_assignment_is_a_recipe_that_can_be_read(small, tmp_path):
    space = small.space
    assignment = tuple(number % 4 for number in range(len(space.groups)))
    plan = space.plan(assignment)
    for group, number in zip(space.groups, assignment, strict=True):
        assert plan.sites[group.site].spec == group.specs[number]
    assert {group.kind for group in space.groups} == {"weight", "activation", "input"}


def test_costs_are_those_of_the_programs(small):
    """Bytes of the weights, bits, and products times widths, counted anew from the lowered program."""
    space = small.space
    costs = {name: make(space) for name, make in COSTS.items()}
    for assignment in drawn(tuple(np.zeros(len(group.specs)) for group in space.groups), 5, seed=3):
        simulation = small.simulation(assignment)
        program = lower(simulation)
        weights = {node.name: node.weight for node in program.nodes if isinstance(node, op.Conv | op.Linear)}
        packed = sum(packed_bytes(data.codes.size, data.encoding.format) for data in weights.values())
        assert costs["weight-memory"].of(assignment) == packed
        stored = stored_items(ledger(program, simulation.plan, simulation.model.graph))
        assert costs["bytes"].of(assignment) == sum(item.bytes for item in stored)  # as compare-plans says
        values = {name: value for name, value in program.values.items()
                  if value.encoding is not None and not program.is_accumulator(name)
                  and not isinstance(next(node for node in program.nodes if node.name == name), op.Reshape)}
        bits = sum(data.codes.size * data.encoding.format.bits for data in weights.values())
        bits += sum(prod(size or 1 for size in value.shape) * value.encoding.format.bits for value in values.values())
        assert costs["bits"].of(assignment) == bits
        bops = 0
        for node in program.nodes:
            if isinstance(node, op.Conv | op.Linear):
                outputs = prod(size or 1 for size in program.values[node.name].shape)
                products = outputs * prod(node.weight.codes.shape[1:])
                bops += products * node.weight.encoding.format.bits * program.encoding(node.input).format.bits
        assert costs["bops"].of(assignment) == bops


def test_the_peak_of_activations(small):
    """By hand: the two 4-channel maps of 4×4 are alive together: 128 numbers at 8 bits."""
    cost = COSTS["activation-memory"](small.space)
    assert cost.of(small.space.finest) == 128


def random_noise(rng, groups, candidates):
    return tuple(np.sort(rng.lognormal(-6, 2, candidates)) for _ in range(groups))


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("seed", range(3))
def test_the_solver_finds_what_exhaustive_search_finds(small, name, seed):
    """7 tensors of 4 candidates: all 16 384 plans."""
    rng = np.random.default_rng(seed)
    noise, cost = random_noise(rng, len(small.space.groups), 4), COSTS[name](small.space)
    plans = list(itertools.product(range(4), repeat=len(noise)))
    noises = np.array([sum(each[number] for each, number in zip(noise, plan, strict=True)) for plan in plans])
    budget = float(np.quantile(noises, 0.3)) * (1 + 1e-9)
    values = np.array([cost.of(plan) for plan in plans])
    found = solve(noise, cost, budget)
    assert found is not None
    assert cost.of(found.assignment) == pytest.approx(values[noises <= budget].min(), rel=1e-6)
    assert found.bound == pytest.approx(found.value, rel=1e-5)
    most = float(np.quantile(values, 0.2))
    least = solve(noise, None, None, [(cost, most)])
    reached = sum(each[number] for each, number in zip(noise, least.assignment, strict=True))
    assert cost.of(least.assignment) <= most * (1 + 1e-9)
    assert reached == pytest.approx(noises[values <= most].min(), rel=1e-4)


def test_what_cannot_be_is_none(small):
    noise = random_noise(np.random.default_rng(0), len(small.space.groups), 4)
    assert solve(noise, COSTS["bits"](small.space), 1e-12) is None


def test_whole_plans_correct_the_model():
    """Plans whose noise is the sum times known factors: the factors come back."""
    rng = np.random.default_rng(0)
    noise, factors = random_noise(rng, 5, 4), np.array([0.5, 2.0, 1.0, 3.0, 0.2])
    truth = NoiseModel(noise, factors, level=0.3, power=0.8)
    plans = [tuple(rng.integers(4, size=5).tolist()) for _ in range(400)]
    measured = [truth.predict(plan) for plan in plans]
    plain, found = NoiseModel.of(noise), NoiseModel.of(noise).corrected(plans, measured)
    new = [tuple(rng.integers(4, size=5).tolist()) for _ in range(100)]
    wanted = np.log([truth.predict(plan) for plan in new])

    def error(model):
        return np.abs(np.log([model.predict(plan) for plan in new]) - wanted).mean()

    assert error(found) < 0.05 < error(plain)
    assert found.power == pytest.approx(0.8, abs=0.05)
    assert found.sum_for(found.predict(plans[0])) == pytest.approx(found.sum(plans[0]))


def test_few_plans_move_factors_little():
    """Two plans do not decide five factors."""
    rng = np.random.default_rng(1)
    noise = random_noise(rng, 5, 4)
    found = NoiseModel.of(noise).corrected([(0,) * 5, (1,) * 5], [1e-3, 2e-3])
    assert np.all(np.abs(np.log(found.factors)) < 1.0)


def test_candidates_without_a_program_are_never_chosen(small):
    noise = [np.array([1e-4, 1e-3, np.inf, 1e-2]) for _ in small.space.groups]
    cost = COSTS["bits"](small.space)
    found = solve(noise, cost, 0.02)
    assert found is not None
    assert 2 not in found.assignment
    assert all(2 not in plan for plan in [*drawn(noise, 20), *spread(noise, 20)])


def test_the_measured_best_is_that_of_all_plans():
    """5 tensors of 3 candidates, all 243 programs measured: the search's plan is within 2 % of the least bits."""
    model, x = network()
    net = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        x = torch.randn(64, 12)
    model = fold(capture(net, x))
    small = Problem.of(Space.of(model, "w8a8", few((8, 5, 3))), [x], [x])
    assert len(small.space.groups) <= 8
    evaluations, cost = Evaluations(small), COSTS["bits"](small.space)
    plans = list(itertools.product(range(3), repeat=len(small.space.groups)))
    measured = evaluations.measured(plans)
    limit = Limit(sqnr=24.0)
    kept = [cost.of(plan) for plan, each in zip(plans, measured, strict=True) if each.sqnr >= 24.0]
    assert 0 < len(kept) < len(plans)
    found = search(Evaluations(small), "bits", limit)
    assert found.best is not None
    assert found.best.measured.sqnr >= 24.0
    assert found.best.costs["bits"] <= 1.02 * min(kept)


def test_greedy_keeps_the_limit_and_costs_no_less():
    small = problem()
    limit = Limit(sqnr=25.0)
    ours, peers = search(Evaluations(small), "bits", limit), search_greedily(Evaluations(small), "bits", limit)
    assert peers.measured.sqnr >= 25.0
    assert ours.best is not None
    assert ours.best.costs["bits"] <= peers.costs["bits"]
    assert front(ours.points, "bits")[-1].measured.noise == min(point.measured.noise for point in ours.points)


def test_aimets_mixed_precision_takes_a_head_of_its_list():
    """Tied pairs from the least noise to the most; the longest head within the limit, later entries over earlier."""
    small, limit = problem(few((8, 5, 3))), Limit(sqnr=20.0)
    space = small.space
    assert sorted(at for members in tied(space) for at in members) == list(range(len(space.groups)))
    found = search_mixed_precision(Evaluations(small), limit)
    assert found.measured.sqnr >= 20.0
    ours = search(Evaluations(small), "bits", limit)
    assert ours.best is not None
    assert ours.best.costs["bits"] <= found.costs["bits"]
    for members in tied(space):
        assert len({found.assignment[at] for at in members[1:]}) <= 1


def test_range_rules_are_choices():
    whole = menu("int,dfp", "minmax,percentile(99.9)")
    assert [text.range for text in whole.weights[:2]] == ["minmax", "percentile(99.9)"]
    assert len(whole.weights) == 2 * 7 + 3
    assert menu("int", ["mse"]).activations[0].range == "mse"


def test_the_winner_is_repaired_and_its_plan_gives_the_program_that_was_measured():
    model, x = network()
    small = Problem.of(Space.of(model, "w8a8", few((8, 4, 3)), ("adaround", "bias-correction")), [x], [x])
    plain = Problem.of(Space.of(model, "w8a8", few((8, 4, 3))), [x], [x])
    limit = Limit(sqnr=17.0)
    found, without = search(Evaluations(small), "bits", limit), search(Evaluations(plain), "bits", limit)
    assert found.best is not None and without.best is not None
    assert found.best.costs["bits"] <= without.best.costs["bits"]
    recipe = small.space.recipe(found.best.assignment)
    assert recipe.repairs == ("adaround", "bias-correction")
    program = lower(calibrate_and_repair(model, plan(model, recipe), [x]))
    with torch.no_grad():
        error = (Executable(program)(x).double() - model(x).double()).square().sum(1)
        ratios = 10 * torch.log10(model(x).double().square().sum(1) / error)
    assert float(ratios.mean()) == pytest.approx(found.best.measured.sqnr, abs=1e-9)


def test_other_costs_stay_within_their_limits(small):
    cost = COSTS["bops"](small.space)
    most = 0.5 * cost.of(small.space.finest)
    found = search(Evaluations(small), "bits", Limit(sqnr=18.0), {"bops": most})
    assert found.best is not None
    assert found.best.costs["bops"] <= most


def test_an_unreachable_limit_names_the_closest_plan(small):
    found = search(Evaluations(small), "bits", Limit(sqnr=90.0))
    assert found.best is None
    assert found.excess == pytest.approx(90.0 - found.closest.measured.sqnr)
    assert found.worst in {group.site for group in small.space.groups}


def test_the_log_is_gone_on_from(tmp_path):
    small, limit = problem(few((8, 4))), Limit(sqnr=25.0)
    whole = search(Evaluations(small, tmp_path / "whole"), "bits", limit)
    log = (tmp_path / "whole").read_bytes()
    lines = log.splitlines(keepends=True)
    for kept in (1, 2, len(lines) // 2, len(lines) - 1):
        cut = b"".join(lines[:kept]) + lines[kept][:7]
        (tmp_path / "cut").write_bytes(cut)
        again = search(Evaluations(small, tmp_path / "cut"), "bits", limit)
        assert (tmp_path / "cut").read_bytes() == log
        assert again.best == whole.best
    Evaluations(small, tmp_path / "whole")
    with pytest.raises(FileError, match="another search"):
        Evaluations(problem(few((8, 3))), tmp_path / "whole")
    entry = json.loads(lines[1])
    for wrong in ({}, [], 3, {**entry, "noise": float("nan")}, {**entry, "noise": "0.1"}, {**entry, "flips": -1},
                  {**entry, "flips": True}, {**entry, "samples": 7}, {**entry, "assignment": [9] * 6},
                  {**entry, "assignment": [0]}, {**entry, "assignment": [False] * 6}, {**entry, "more": 1},
                  {**entry, "shift": 1.0}, {**entry, "shift": ["x"]}, {**entry, "along": float("inf")}):
        (tmp_path / "whole").write_bytes(lines[0] + json.dumps(wrong).encode() + b"\n")
        with pytest.raises(FileError, match="damaged"):
            Evaluations(small, tmp_path / "whole")
    for wrong in (b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"\n"):
        (tmp_path / "whole").write_bytes(lines[0] + wrong)
        with pytest.raises(FileError, match="damaged"):
            Evaluations(small, tmp_path / "whole")


@pytest.fixture
def calibrated(monkeypatch):
    """What the search calibrates while the test runs."""
    plans = []

    def spy(model, plan, batches):
        plans.append(plan)
        return calibrate(model, plan, batches)

    monkeypatch.setattr(encodings, "calibrate", spy)
    return plans


def test_a_whole_log_needs_no_encodings(tmp_path, calibrated):
    """One calibration a candidate at first; none for a rerun; for a log that lacks plans, those of their candidates."""
    path, limit = tmp_path / "log", Limit(sqnr=25.0)
    whole = search(Evaluations(problem(few((8, 5, 3))), path), "bits", limit)
    assert len(calibrated) == 3
    log = path.read_bytes()
    calibrated.clear()
    again = search(Evaluations(problem(few((8, 5, 3))), path), "bits", limit)
    assert calibrated == []
    assert (again.best, again.points, path.read_bytes()) == (whole.best, whole.points, log)
    lines = log.splitlines(keepends=True)
    missing = next(at for at, line in enumerate(lines[1:], 1) if set(json.loads(line)["assignment"]) == {0, 2})
    path.write_bytes(b"".join(lines[:missing]))
    lacking, asked = problem(few((8, 5, 3))), json.loads(lines[missing])
    Evaluations(lacking, path).measured([tuple(asked["assignment"])], asked["how"])
    assert len(calibrated) == 2
    assert path.read_bytes() == b"".join(lines[:missing + 1])


class Elsewhere(Executor):
    """Works on copies, as another process does."""

    def submit(self, fn, /, *args, **kwargs):
        done = Future()
        done.set_result(fn(*pickle.loads(pickle.dumps(args)), **kwargs))
        return done


def test_workers_find_no_encodings(calibrated):
    small = problem(few((8, 5, 3)))
    search(Evaluations(small, None, Elsewhere(), 2), "bits", Limit(sqnr=25.0))
    assert len(calibrated) == 3


def test_the_log_belongs_to_what_decides_the_encodings():
    """Known before any is found; repairs are no part of it."""
    model, x = network()
    minmax, mse = ({"format": "int8", "range": rule} for rule in ("minmax", "mse"))
    activations, w8a8 = few((8,)).activations, recipe("w8a8")

    def digest(text=minmax, batches=(x,), base=w8a8, repairs=None, of=model):
        menu = Menu((SpecText(**text),), activations)
        return Problem.of(Space.of(of, base, menu, repairs), batches, [x]).digest

    assert digest() == digest(repairs=("adaround",)) == digest(of=network()[0])
    other = [digest(mse), digest(batches=(x[:2],)), digest(batches=(x, x)), digest(batches=(x[:2], x[2:])),
             digest(base=w8a8.model_copy(update={"outputs": "quantized"})), digest(of=network(1)[0])]
    assert len({digest(), *other}) == 7


def test_refused_calibration_leaves_no_log(tmp_path):
    model, x = network()
    space = Space.of(model, "w8a8", few((8, 4)))
    with pytest.raises(CalibrationError, match=r"batch 1: .*NaN"):
        Problem.of(space, [x, x * float("nan")], [x])
    with pytest.raises(CalibrationError, match="no calibration batches"):
        Evaluations(Problem.of(space, [], [x]), tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_ristrettos_three_sweeps():
    """Each width is scored with all else in float, the last good one before the first bad one is kept."""
    small = problem(ristretto_menu(), labels=True)
    limit = Limit(drop=10.0)
    with pytest.warns(UndecidedWarning):
        Limit(drop=0.5).warn_if_undecided(small)
    found = ristretto(Evaluations(small), limit)
    assert [sweep.kind for sweep in found.sweeps] == ["convolutions", "fully connected", "activations"]
    for sweep in found.sweeps:
        widths = [width for width, _ in sweep.scores]
        assert widths == list(WIDTHS[:len(widths)])
        good = [width for width, score in sweep.scores if limit.excess(small, score) <= 0]
        assert sweep.chosen == (good[-1] if good else 32)
        assert all(limit.excess(small, score) <= 0 for _, score in sweep.scores[:-1])
    assert "fine-tune" in found.suggestion


@pytest.mark.parametrize(("call", "words"), [
    (lambda p: menu("int,imaginary"), "no menu is called 'imaginary'"),
    (lambda p: menu(" , "), "menu is empty"),
    (lambda p: menu("int", "least"), "--ranges: .*'least'"),
    (lambda p: menu("int", " "), "no range rule"),
    (lambda p: Space.of(p.space.model, "w8a8", p.space.menu, ("adaround", "gptq")), "leave one of them out"),
    (lambda p: Space.of(p.space.model, "w8a8", p.space.menu, ("polish",)), "no repair is called 'polish'"),
    (lambda p: menu("pow2"), "no candidates for activations"),
    (lambda p: Limit(), "needs a limit"),
    (lambda p: Limit(drop=-0.1), "between 0 and 100, not -0.1"),
    (lambda p: Limit(flips=100.1), "0 to 100 percent, not 100.1"),
    (lambda p: Limit(sqnr=float("nan")), "dB to keep are a number, not nan"),
    (lambda p: search(Evaluations(p), "bits", Limit(sqnr=20), {"bytes": -4096.0}), "bytes is a number above 0"),
    (lambda p: search(Evaluations(p), "bits", Limit(sqnr=20), {"bytes": float("nan")}), "above 0, not nan"),
    (lambda p: search(Evaluations(p), "weight", Limit(sqnr=20)), "no cost is called 'weight'"),
    (lambda p: search(Evaluations(p), "latency", Limit(sqnr=20)), "latency is none of the costs"),
    (lambda p: search(Evaluations(p), "bytes", Limit(sqnr=20), {"latency": 3.0}), "latency is none of the costs"),
    (lambda p: search(Evaluations(p), "bits", Limit(sqnr=20), {"bytes": 3.0}), "bytes at most 3, and the least is"),
    (lambda p: search(Evaluations(p), "bits", Limit(drop=1.0)), "needs labels"),
    (lambda p: Problem.of(p.space, [torch.randn(4, 2, 4, 4)], []), "no samples"),
])
def test_careless_searches_are_one_sentence(small, call, words):
    with pytest.raises(SearchError, match=words):
        call(small)


def test_sensitivities_grow_with_coarser_candidates(small):
    alone = sensitivities(Evaluations(small))
    assert all((np.diff(each) > 0).mean() >= 2 / 3 for each in alone)


@pytest.mark.parametrize("classes", [5, 40])
def test_where_a_candidates_noise_lies(classes):
    """Along the outputs, the same for all samples (random directions of it, where classes are many), and the rest."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, x = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, classes)).eval(), torch.randn(64, 12)
    model = fold(capture(net, x))
    small = Problem.of(Space.of(model, "w8a8", few((8, 3))), [x], [x])
    space = small.space
    plan = (*space.finest[:-1], 1)
    with torch.no_grad():
        y = model(x).double().numpy()
    one, finest = (Executable(lower(small.simulation(each)))(x).double().numpy() for each in (plan, space.finest))
    moved, energy = one - finest, (y**2).sum()
    along = (moved * y).sum() / energy
    shift = (moved - along * y).mean(0) * (64 / energy) ** 0.5
    evaluations = Evaluations(small)
    found = evaluations.measured([plan], "moved")[0]
    assert found.noise == pytest.approx((moved**2).sum() / energy)
    assert found.along == pytest.approx(along)
    if classes == 5:
        assert found.shift == pytest.approx(shift.tolist())
    else:
        signs = np.random.default_rng(0).choice((-1.0, 1.0), (classes, 16))
        assert found.shift == pytest.approx((shift @ signs / 4).tolist())
    alone = effects(evaluations, sensitivities(evaluations))
    assert alone.gain[-1] == pytest.approx([0.0, np.log(1 + along)])
    rest = found.noise - along**2 - sum(each**2 for each in found.shift)
    assert alone.rest[-1][1] == pytest.approx(max(rest, 0.0))


def test_the_verb_writes_plans_that_can_be_rerun(tmp_path):
    x = np.random.default_rng(0).normal(size=(96, 12)).astype(np.float32)
    y = np.arange(96) % 4
    np.savez(tmp_path / "data.npz", train_x=x, train_y=y, test_x=x[:32], test_y=y[:32])
    (tmp_path / "searched_net.py").write_text(
        "import torch\nfrom torch import nn\ndef net():\n    return nn.Sequential(nn.Linear(12, 10), nn.ReLU(), "
        "nn.Linear(10, 4))\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        out = tmp_path / "out"
        given = ["searched_net:net", "--data", f"npz:{tmp_path / 'data.npz'}", "--out", str(out), "--samples", "40"]
        done = CliRunner().invoke(app, ["search", *given, "--min-sqnr", "20", "--minimize", "bits"])
        assert done.exit_code == 0, done.output
        assert "training images decide" in " ".join(done.output.split())
        first = (out / "plan.yaml").read_bytes()
        again = CliRunner().invoke(app, ["search", *given, "--min-sqnr", "20", "--minimize", "bits"])
        assert again.exit_code == 0
        assert (out / "plan.yaml").read_bytes() == first
        assert (out / "front.svg").read_text().startswith("<svg")
        run = CliRunner().invoke(app, ["quantize", *given[:3], "--recipe", str(out / "plan.yaml"),
                                       "--out", str(tmp_path / "q")])
        assert run.exit_code in (0, 3), run.output
        assert (tmp_path / "q" / "model.fewbits").exists()
        with pytest.raises(SearchError, match="misses it by"):
            CliRunner().invoke(app, ["search", *given[:3], "--out", str(tmp_path / "o2"), "--min-sqnr", "99"],
                               catch_exceptions=False)
        assert (tmp_path / "o2" / "plan.yaml").exists()
        tuned = CliRunner().invoke(app, ["search", *given, "--min-sqnr", "20", "--minimize", "bits", "--fine-tune",
                                         "lsq-w4a4", "--epochs", "1"])
        assert tuned.exit_code == 0, tuned.output
        assert (out / "plan.yaml").read_bytes() == first
        assert json.loads((out / "fine-tuned" / "summary.json").read_text())["mismatches"] == 0
        for options, words in ((["--min-sqnr", "20", "--fine-tune", "w8a8"], "names no method"),
                               ([], "needs a limit"), (["--min-sqnr", "20", "--weight-memory", "x"], "no number of"),
                               (["--min-sqnr", "20", "--method", "greedy", "--weight-memory", "64"], "knows no limits"),
                               (["--min-sqnr", "20", "--weight-memory", "-4k"], "above 0, not -4096"),
                               (["--min-sqnr", "20", "--method", "magic"], "no method")):
            with pytest.raises(SearchError, match=words):
                CliRunner().invoke(app, ["search", *given[:3], "--out", str(tmp_path / "o3"), *options],
                                   catch_exceptions=False)


@pytest.mark.parametrize("methods", ["lsq-w4a4", "qat-w8a8", "pact-w4a4"])
def test_a_plan_learns_as_a_recipe_says(small, methods):
    """Formats of the plan, methods as that recipe's own plan has them."""
    found = small.space.recipe(tuple(1 + number % 3 for number in range(len(small.space.groups))))
    taught = learning(found, methods, small.space.model)
    resolved = plan(small.space.model, taught)
    before, own = plan(small.space.model, found), plan(small.space.model, methods)
    for group in small.space.groups:
        spec, old = resolved.sites[group.site].spec, before.sites[group.site].spec
        assert spec is not None and old is not None and spec.format == old.format
        assert spec.method == own.sites[group.site].spec.method
    with pytest.raises(SearchError, match="names no method"):
        learning(found, "w8a8", small.space.model)


def test_workers_change_nothing(tmp_path):
    small, limit = problem(few((8, 4))), Limit(sqnr=25.0)
    alone = search(Evaluations(small, tmp_path / "one"), "bits", limit)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        together = search(Evaluations(small, tmp_path / "two", pool, 2), "bits", limit)
    assert together.best == alone.best
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_cluster_changes_nothing(tmp_path):
    distributed = pytest.importorskip("dask.distributed", reason="dask is an extra: pip install 'fewbits[cluster]'")
    small, limit = problem(few((8, 4))), Limit(sqnr=25.0)
    alone = search(Evaluations(small), "bits", limit)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        together = search(Evaluations(small, None, client.get_executor(), 2), "bits", limit)
    assert together.best == alone.best
