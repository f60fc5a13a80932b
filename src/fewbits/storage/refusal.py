"""Why bytes are no `.fewbits` file, said before it is known which file they came from."""


class Refusal(Exception):  # noqa: N818  # not yet an error: `file.py` makes a FileError of it
    """One reason and one mend. They become the sentence `<path> <reason>: <mend>`."""

    def __init__(self, reason: str, mend: str = "copy it again, or save the program again"):
        super().__init__(f"{reason}: {mend}")
        self.reason = reason
        self.mend = mend


def quoted(text: object) -> str:
    """Text from a file, fit for a sentence: quoted, control characters escaped, cut after 60 characters."""
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def shortened(sentence: str) -> str:
    """A sentence that names things from a file, cut after 300 characters."""
    return sentence if len(sentence) <= 300 else sentence[:297] + "..."
