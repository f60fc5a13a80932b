"""Cells: read as Jupyter reads them, run as Python runs the file, shown without loss."""

import html
import re

import pytest

from fewbits.errors import FewbitsError, FileError, OptionError
from fewbits.notebook.page import digest, page
from fewbits.notebook.percent import cells, title
from fewbits.notebook.run import run

SOURCE = '''# %% [markdown]
# # A title with `code`
#
# Prose, 2 < 3.

# %% tags=["parameters"]
epochs = 2
rate = 0.5
name = "digits"

# %%
print(epochs, rate, name)
epochs < 9

# %%
x = 1


class Shown:
    def _repr_svg_(self):
        return "<svg/>"


Shown()
'''


def test_cells(tmp_path):
    found = cells(SOURCE)
    assert [cell.kind for cell in found] == ["markdown", "code", "code", "code"]
    assert [cell.line for cell in found] == [2, 7, 12, 16]
    assert [cell.settings for cell in found] == [False, True, False, False]
    assert found[0].text == "# A title with `code`\n\nProse, 2 < 3."
    assert title(found, tmp_path) == "A title with `code`"
    for cell in found[1:]:
        assert SOURCE.splitlines()[cell.line - 1] == cell.text.splitlines()[0]
    with pytest.raises(FileError, match="line 1"):
        cells("import os\n# %%\n1")


def test_running(tmp_path):
    names = {}
    ran = list(run(cells(SOURCE), tmp_path / "lab.py", {"epochs": "7"}, names))
    assert ran[2].printed == "7 0.5 digits\n"
    assert ran[2].value == "True"
    assert ran[3].svg == "<svg/>"
    assert ran[3].value is None
    assert names["x"] == 1
    assert names["epochs"] == 7
    text = page("lab", "A title", SOURCE, ran, ["epochs=7"])
    assert digest(SOURCE) in text
    assert "2 &lt; 3" in text
    assert "<svg/>" in text
    assert "--set epochs=7" in text
    code = html.unescape(re.sub(r"<[^>]*>", "", text))
    assert "print(epochs, rate, name)" in code


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"speed": "1"}, "no setting 'speed'.*epochs, rate, name"), ({"epochs": "many"}, "epochs is int, such as 2")])
def test_settings_are_checked(settings, sentence, tmp_path):
    with pytest.raises(OptionError, match=sentence):
        list(run(cells(SOURCE), tmp_path / "lab.py", settings))


def test_a_check_that_fails_says_where(tmp_path):
    """One sentence with the line, as any bad input."""
    with pytest.raises(FewbitsError, match=r"lab.py, line 3: .*assert 1 == 2"):
        list(run(cells("# %%\nx = 1\nassert 1 == 2\n"), tmp_path / "lab.py"))
