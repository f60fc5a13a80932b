"""Plans beside each other: memory and bit operations counted by hand, the table, the pictures, refused recipes."""

import io
import json

import pytest
import torch
from report_cases import Case, lowered
from rich.console import Console
from torch import nn

import fewbits as fb
from fewbits.capture.capture import capture
from fewbits.errors import DataError, OptionError, RecipeError
from fewbits.fold.fold import fold
from fewbits.lower.lower import lower
from fewbits.plots.axes import Axis
from fewbits.plots.in_text import HEIGHT, WIDTH, points_in_text
from fewbits.report.energy import energy_estimates, float_work, integer_work
from fewbits.report.footprint import Footprint, float_footprint, footprint
from fewbits.report.plan_figures import QUANTITIES, PlanComparison
from fewbits.search.costs import COSTS
from fewbits.search.problem import Problem
from fewbits.search.space import Space, menu


def two_layers() -> nn.Module:
    """3×3 convolution of 2 to 4 channels on 6×6 (outputs 4×4), then ten outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def counted() -> Case:
    return lowered(two_layers(), torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0)))


def test_a_footprint_counted_by_hand(counted: Case) -> None:
    products, last = 4 * 4 * 4 * 2 * 9, 640
    found = footprint(counted.program)
    assert found.weight_memory == 4 * 2 * 9 + 640
    assert found.activation_memory == found.arena == 72 + 64  # the input and the map, beside which 40 bytes of sums fit
    assert found.bops == (products + last) * 64
    assert float_footprint(counted.program) == Footprint(4 * (72 + 640), 4 * (72 + 64), 4 * (72 + 64),
                                                         (products + last) * 1024)


def test_float_products_of_islands_count_as_such(data) -> None:
    found = fb.compare_plans(two_layers(), *data, ["w8"])
    assert found.plans[0].footprint.bops == found.original.footprint.bops == (4 * 4 * 4 * 2 * 9 + 640) * 1024


def test_the_documents_ratios_for_each_operation(counted: Case) -> None:
    """An fp32 addition costs 30 times an int8 one, a multiplication 18.5 times; of a program, of which every product
    adds in int32, the multiplications alone, and bit operations fall by the square of the widths."""
    table = fb.costs().operations
    assert table["add fp32"].pJ[0] / table["add int8"].pJ[0] == pytest.approx(30)
    assert table["multiply fp32"].pJ[0] / table["multiply int8"].pJ[0] == pytest.approx(18.5)
    floats = sum(work.operations.get("multiply fp32", 0) for work in float_work(counted.program))
    codes = sum(work.operations.get("multiply int8", 0) for work in integer_work(counted.program))
    assert floats == codes
    assert floats * table["multiply fp32"].pJ[0] / (codes * table["multiply int8"].pJ[0]) == pytest.approx(18.5)
    assert float_footprint(counted.program).bops / footprint(counted.program).bops == 16
    near = energy_estimates(counted.program)[0]
    assert near.original.arithmetic[0] == pytest.approx(floats * (3.7 + 0.9))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_searched_is_what_the_programs_take(seed: int) -> None:
    """Costs of a search against footprints of lowered programs, widths at random, pools and residual sums."""
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.pool, self.head = nn.MaxPool2d(2), nn.Linear(64, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            return self.head(self.pool((self.second(x) + x).relu()).flatten(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, x = Net().eval(), torch.randn(8, 2, 8, 8)
    space = Space.of(fold(capture(net, x)), "w8a8", menu("int"))
    problem, rng = Problem.of(space, [x], [x]), torch.Generator().manual_seed(seed)
    for _ in range(3):
        assignment = tuple(torch.randint(7, (len(space.groups),), generator=rng).tolist())
        found = footprint(lower(problem.simulation(assignment)))
        assert COSTS["weight-memory"](space).of(assignment) == found.weight_memory
        assert COSTS["activation-memory"](space).of(assignment) == found.activation_memory
        assert COSTS["bops"](space).of(assignment) == found.bops


@pytest.fixture(scope="module")
def data() -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    rng = torch.Generator().manual_seed(1)
    calibration = [torch.randn(16, 2, 6, 6, generator=rng) for _ in range(2)]
    test = [(torch.randn(16, 2, 6, 6, generator=rng), torch.randint(10, (16,), generator=rng)) for _ in range(2)]
    return calibration, test


@pytest.fixture(scope="module")
def compared(data) -> PlanComparison:
    return fb.compare_plans(two_layers(), *data, ["w8a8", "w4a8", "w8a16", "w8a8"], engine="torch")


def test_each_plan_is_measured_of_its_program(compared: PlanComparison, data) -> None:
    calibration, test = data
    assert [plan.name for plan in compared.plans] == ["w8a8", "w4a8", "w8a16", "w8a8 (2)"]
    program = fb.quantize(two_layers(), calibration[0], calibration, "w4a8")
    found = compared.plans[1]
    assert found.comparison == fb.compare(two_layers(), program, test)
    assert found.footprint == footprint(program.program)
    assert found.energy == energy_estimates(program.program)[0].integers.total
    assert found.latency is not None and found.latency > 0
    assert compared.plans[0].comparison == compared.plans[3].comparison
    assert "LoweringError" in compared.plans[2].refused


def test_the_table_the_page_and_the_json_say_the_same(compared: PlanComparison) -> None:
    stream = io.StringIO()
    compared.render(Console(file=stream, width=200))
    rows = dict(compared.rows())
    assert rows["less float, points"][0] == ""
    assert rows["classes changed"][3] == "–"
    for text in (stream.getvalue(), compared.page()):
        assert "w8a16 is refused" in text
        assert rows["file bytes"][1] in text
    read = json.loads(compared.to_json())
    assert read["plans"][0]["footprint"]["bops"] == compared.plans[0].footprint.bops
    assert "<script" not in compared.page()
    assert "://" not in compared.page().replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("x", QUANTITIES)
def test_any_two_quantities_make_a_picture(compared: PlanComparison, x: str) -> None:
    for y in QUANTITIES:
        assert compared.picture(x, y).svg.count("<circle") >= 3
        assert "A  w8a8" in compared.text_picture(x, y)
    with pytest.raises(OptionError, match="no figure of plans is called 'beauty'"):
        compared.picture(x, "beauty")


def test_a_picture_in_text() -> None:
    picture = points_in_text(Axis("bytes", logarithmic=True), Axis("dB"),
                           [("small", 10.0, 1.0), ("large", 1000.0, 3.0), ("middle", 100.0, 2.0), ("none", 0.0, 1.0)])
    lines = picture.splitlines()
    assert lines[0] == "dB"
    field = [line.split("│")[1].ljust(WIDTH) for line in lines[1:1 + HEIGHT]]
    assert field[0][-1] == "B" and field[-1][0] == "A"
    assert any("C" in row[WIDTH // 2 - 1:WIDTH // 2 + 1] for row in field)
    assert "D" not in picture
    assert points_in_text(Axis("x"), Axis("y"), []) == "nothing to draw"


def test_without_labels_what_changed_is_told(data) -> None:
    calibration, test = data
    found = fb.compare_plans(two_layers(), calibration, [x for x, _ in test], ["w8a8"])
    assert not any("top-1" in head for head, _ in found.rows())
    assert found.plans[0].comparison is not None
    assert found.plans[0].comparison.flips == fb.compare_plans(two_layers(), *data, ["w8a8"]).plans[0].comparison.flips


def test_careless_comparisons_are_one_sentence(data) -> None:
    calibration, test = data
    with pytest.raises(DataError, match="no recipes"):
        fb.compare_plans(two_layers(), calibration, test, [])
    with pytest.raises(DataError, match="no test batches"):
        fb.compare_plans(two_layers(), calibration, [], ["w8a8"])
    with pytest.raises(RecipeError, match="no recipe is called 'w9'"):
        fb.compare_plans(two_layers(), calibration, test, ["w9"])
    with pytest.raises(OptionError, match="engine 'steam' is none"):
        fb.compare_plans(two_layers(), calibration, test, ["w8a8"], engine="steam")
