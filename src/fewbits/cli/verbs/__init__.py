"""What each verb is told: frozen dataclasses of arguments and options. Nothing here imports torch.

A verb is added by its class here, with its name in `ALL`, and its job in a module of `fewbits.cli`.
"""

from fewbits.cli.verb import Verb
from fewbits.cli.verbs.compare_plans import ComparePlans
from fewbits.cli.verbs.compress import Compress, Decompress
from fewbits.cli.verbs.doctor import Doctor
from fewbits.cli.verbs.formats import Formats
from fewbits.cli.verbs.lab import Lab
from fewbits.cli.verbs.quantize import Demo, Quantize
from fewbits.cli.verbs.reproduce import Reproduce
from fewbits.cli.verbs.saved import Encodings, Evaluate, Export, Inspect, Verify
from fewbits.cli.verbs.search import Search
from fewbits.cli.verbs.studies import Calibrate, CalibrationStudy, RoundingStudy, Sensitivity
from fewbits.cli.verbs.train import Train

ALL: tuple[type[Verb], ...] = (Quantize, Demo, Evaluate, Inspect, Verify, Export, Encodings, Calibrate, Train, Search,
                               ComparePlans, Sensitivity, RoundingStudy, CalibrationStudy, Formats, Compress,
                               Decompress, Reproduce, Lab, Doctor)
"""In the order of `fewbits --help`."""
