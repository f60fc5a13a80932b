"""The labs: Python files of cells (percent format, which Jupyter reads through jupytext), run and shown as pages."""
