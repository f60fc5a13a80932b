"""Every error a user can cause. One sentence each: it names the thing and the mend.

The command line prints the sentence and exits with the error's code, 2 where nothing else is said; anything that is
not a `FewbitsError` is a defect of ours and shows its traceback.
"""


class FewbitsError(Exception):
    """Base of all errors that are about the user's input rather than about our code.

    exit_code: of the command that ends with it.
    """

    exit_code = 2


class OptionError(FewbitsError):
    """An option's value that is none of those allowed; names the option, the value and what is allowed."""


class EncodingError(FewbitsError):
    """A format, block or encoding that cannot be, or data it cannot hold."""


class CaptureError(FewbitsError):
    """The model cannot be brought into a graph."""


class UnsupportedError(FewbitsError):
    """The graph holds operators that have no integer form here; lists all of them at once."""


class RecipeError(FewbitsError):
    """A recipe that does not read, or does not fit the model."""


class CalibrationError(FewbitsError):
    """Calibration data that would give wrong ranges; names the tensor and the batch."""


class RepairError(FewbitsError):
    """A repair that does not fit the simulation: too late in the order of repairs, or nothing to work on."""


class TrainingError(FewbitsError):
    """A training that has gone wrong; names the step and, where it is known, the layer."""


class LoweringError(FewbitsError):
    """A simulation that has no integer program under the chosen profile."""


class ProgramError(FewbitsError):
    """A program that is not well formed, or inputs it does not take."""


class KernelError(FewbitsError):
    """A level of instructions that is not there, or a call that the native kernels refuse; names it and says why."""


class SearchError(FewbitsError):
    """A search without candidates or data, or whose limits contradict each other."""


class LabError(FewbitsError):
    """A check in a lab that does not hold; names its file and line."""


class VerificationError(FewbitsError):
    """Two executions of one program gave different codes; nothing was written."""


class ExportError(VerificationError):
    """An ONNX file that was refused: an engine here does not compute its program. What was saved before stays."""

    exit_code = 3


class FileError(FewbitsError):
    """A file that is missing, damaged, of another version, or not ours."""


class DataError(FewbitsError):
    """A data set or weights that cannot be had or do not fit the network."""


class InterruptedVerb(FewbitsError):  # noqa: N818, nothing went wrong
    """Ctrl-C; says what is kept."""

    exit_code = 130


class FewbitsWarning(UserWarning):
    """Base of all warnings fewbits gives: the work goes on, and what it makes may not be what was wanted."""


class CollapseWarning(FewbitsWarning):
    """A learned range that an update of its own has brought to nothing."""


class NormalisationWarning(FewbitsWarning):
    """Calibration data that does not look like what the network was trained on."""


class UndecidedWarning(FewbitsWarning):
    """Too few samples to tell apart what was asked to be told apart; says how many it takes."""


class ClippingWarning(FewbitsWarning):
    """A range rule that cuts off more than it gains."""


class StretchWarning(FewbitsWarning):
    """A range that a few numbers far from all others stretch."""


class PaddingWarning(FewbitsWarning):
    """Ranges found at run time over places that a mask hides."""


class RepairWarning(FewbitsWarning):
    """A repair that would have made the outputs worse."""


class MethodWarning(FewbitsWarning):
    """A method that learns, taken without its training."""


class UntrainedWarning(FewbitsWarning):
    """A network whose weights are random numbers."""


class UnrolledWarning(FewbitsWarning):
    """A loop over steps, written in Python, that stays a layer for each step."""


class InputWarning(FewbitsWarning):
    """A network writes into the tensors that it is given."""


class DataWarning(FewbitsWarning):
    """Calibration data that cannot be what the network is for."""
