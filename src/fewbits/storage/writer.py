"""Who writes a file."""

from fewbits.version import __version__


def this_writer() -> str:
    """Such as `fewbits 0.1.0`."""
    return f"fewbits {__version__}"
