"""The integer graph: nodes, profiles, accumulator bounds, and `reference.py`, the definition."""
