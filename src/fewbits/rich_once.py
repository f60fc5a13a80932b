"""rich, imported without a trace: its styles draw from Python's own random numbers when they are imported.

`fewbits/__init__.py` imports this file first, so that every later `from rich …` finds what is here.
"""

import random

_before = random.getstate()

import rich.console  # noqa: E402
import rich.progress  # noqa: E402, F401

random.setstate(_before)
