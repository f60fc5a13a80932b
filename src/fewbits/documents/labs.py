"""docs/labs: every lab run and written as a page: `python -m fewbits.documents.labs [NAME …]`."""

import sys
from pathlib import Path

from fewbits.files import write_whole
from fewbits.notebook.labs import lab, labs
from fewbits.notebook.page import page
from fewbits.notebook.percent import cells, title
from fewbits.notebook.run import run

FOLDER = Path("docs/labs")


def document(name: str, path: Path) -> str:
    """The page of a lab, run with its own settings."""
    source = path.read_text()
    parts = cells(source)
    return page(name, title(parts, path), source, list(run(parts, path)))


if __name__ == "__main__":
    for wanted in sys.argv[1:] or labs():
        write_whole(FOLDER / f"{wanted}.html", document(wanted, lab(wanted)).encode())
        print(FOLDER / f"{wanted}.html")
