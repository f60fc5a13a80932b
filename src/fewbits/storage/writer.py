"""Who writes a file."""

from importlib import metadata


def this_writer() -> str:
    """Such as `fewbits 0.1.0`."""
    try:
        return f"fewbits {metadata.version('fewbits')}"
    except metadata.PackageNotFoundError:  # run from its source tree
        return "fewbits (source)"
