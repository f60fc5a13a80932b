"""Recipes that come with fewbits, one YAML file each."""

from importlib import resources

DEFAULT_RECIPE = "default-w8a8"
"""The preset that `quantize` takes where none is named."""


def presets() -> tuple[str, ...]:
    """Names of the recipes that come with fewbits."""
    return tuple(sorted(item.name.removesuffix(".yaml") for item in resources.files(__name__).iterdir()
                        if item.name.endswith(".yaml")))


def preset(name: str) -> bytes:
    """The YAML of one of `presets`."""
    return resources.files(__name__).joinpath(f"{name}.yaml").read_bytes()
