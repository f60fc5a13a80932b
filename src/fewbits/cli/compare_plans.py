"""`fewbits compare-plans`: recipes of one network beside each other."""

import json

from rich.console import Console

from fewbits.cli.data import open_data
from fewbits.cli.opened import network_with_weights
from fewbits.cli.verbs.compare_plans import ComparePlans
from fewbits.errors import OptionError
from fewbits.files import write_whole
from fewbits.report.plan_figures import quantity
from fewbits.tasks.registry import resolve
from fewbits.workflow.compare_plans import run_compare_plans

_NO_ENGINE = "none"


def compare_plans(asked: ComparePlans, console: Console) -> object:
    """The job of the verb."""
    for axis in (asked.x, asked.y):
        quantity(axis)
    wanted = [each.strip() for each in asked.recipes.split(",") if each.strip()]
    if not wanted:
        raise OptionError("--recipes names none: give presets or YAML files, joined by commas")
    task = resolve(asked.network)
    net = network_with_weights(task, asked.weights).eval()
    split, preparation = open_data(asked.data, asked, task.preparation, task.example_shape)
    calibration = split.draw_calibration(asked.seed).inputs(asked.batch_size, preparation.normalize)
    test = (split.test.inputs(asked.batch_size, preparation.normalize) if split.test.y is None
            else split.test.batches(asked.batch_size, preparation.normalize))
    found = run_compare_plans(net, calibration, test, wanted, profile=asked.profile,
                              engine=None if asked.engine == _NO_ENGINE else asked.engine, name=asked.network)
    found.render(console)
    console.print(found.text_picture(asked.x, asked.y), highlight=False, markup=False)
    if asked.plot is not None:
        found.picture(asked.x, asked.y).save(asked.plot)
        console.print(f"written: {asked.plot}", highlight=False)
    if asked.html is not None:
        write_whole(asked.html, found.page(asked.x, asked.y).encode())
        console.print(f"written: {asked.html}", highlight=False)
    return json.loads(found.to_json())
