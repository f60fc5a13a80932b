"""`fewbits doctor`."""

from dataclasses import dataclass

from fewbits.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Doctor(Verb):
    """Say what is here: versions, processor, kernels, engines, and what is missing and how to get it."""

    job = "fewbits.cli.doctor:doctor"
    examples = ("fewbits doctor", "fewbits doctor --json")
