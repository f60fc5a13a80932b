"""The option `--processor`."""

from typing import Annotated

import typer

from fewbits.engines.exactness import Target

ProcessorOption = Annotated[Target, typer.Option(
    "--processor", help="Where model.onnx must be exact: any x86-64; those with vnni, where it is faster; this one")]
