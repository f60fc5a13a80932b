"""The process as it was before: what the first use of torch's exporter leaves behind is taken back."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undisturbed() -> Iterator[None]:
    """Warning filters (sympy adds one when it is imported) and the environment (torch names a cache folder of its
    compiler there) are afterwards as they were."""
    environment = dict(os.environ)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            for name, value in environment.items():
                if os.environ.get(name) != value:
                    os.environ[name] = value


@contextmanager
def unlogged(name: str) -> Iterator[None]:
    """Without what a logger of torch's writes about a failure that becomes a sentence of ours."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
