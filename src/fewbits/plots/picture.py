"""A picture: its SVG, which a notebook shows and a file keeps."""

import re
from dataclasses import dataclass
from pathlib import Path

from fewbits.errors import FileError
from fewbits.files import write_whole

_SIZE = re.compile(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"')


@dataclass(frozen=True)
class Picture:
    """svg: a whole document, without scripts, fonts or anything else from outside (docs/decisions/0006)."""

    svg: str

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all. Raises FileError for a name that does not end in .svg."""
        if Path(path).suffix.lower() != ".svg":
            raise FileError(f"{path} must end in .svg: pictures are SVG")
        write_whole(Path(path), self.svg.encode())

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in units of the drawing."""
        found = _SIZE.search(self.svg)
        assert found is not None, "every picture of ours says its size"
        return float(found[1]), float(found[2])

    def _repr_svg_(self) -> str:
        """What a notebook shows."""
        return self.svg

    def __repr__(self) -> str:
        width, height = self.size
        return f"Picture({width:g} × {height:g})"


def beside(*pictures: Picture, columns: int = 2) -> Picture:
    """Several pictures as one, in rows of so many."""
    gap = 16.0
    rows = [pictures[at:at + columns] for at in range(0, len(pictures), columns)]
    parts, y, widest = [], 0.0, 0.0
    for row in rows:
        x = 0.0
        for each in row:
            width, height = each.size
            parts.append(each.svg.strip().replace("<svg ", f'<svg x="{x:g}" y="{y:g}" width="{width:g}" '
                                                          f'height="{height:g}" ', 1))
            x += width + gap
        widest = max(widest, x - gap)
        y += max(each.size[1] for each in row) + gap
    return Picture("\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {widest:g} {y - gap:g}">',
                              f'<rect width="{widest:g}" height="{y - gap:g}" fill="#ffffff"/>', *parts, "</svg>", ""]))
