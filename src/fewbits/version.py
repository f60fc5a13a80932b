"""The version, of which pyproject.toml makes the package's."""

__version__ = "0.1.0"
