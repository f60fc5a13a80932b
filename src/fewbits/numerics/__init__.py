"""What a number can be: formats, rounding, blocks, encodings, packing. Over NumPy and torch arrays."""
