"""Where in the user's code something stands, from a stack trace."""

import os
import re

import torch

_TORCH_FOLDER = os.path.dirname(torch.__file__)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


def user_line(text: str) -> str:
    """`file.py:31` of the innermost frame of a stack trace that is not torch's own, or ''."""
    frames = [(path, line) for path, line, _ in _FRAME.findall(text)
              if not path.startswith(_TORCH_FOLDER) and not path.startswith(("<", "torch/"))]
    return f"{os.path.basename(frames[-1][0])}:{frames[-1][1]}" if frames else ""
