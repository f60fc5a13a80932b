"""The labs: Python files of cells (the percent format, which Jupyter reads through jupytext), run and shown as pages."""
