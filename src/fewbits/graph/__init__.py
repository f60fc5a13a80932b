"""Capture of a model into a graph of ATen operators, the table of known operators, and folding."""
