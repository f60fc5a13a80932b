"""Number formats, rounding, granularity, encodings, packing and cost tables, over NumPy and torch arrays."""
