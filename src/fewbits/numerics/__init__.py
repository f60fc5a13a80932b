"""What a number can be: formats, rounding, blocks, encodings, packing. The lowest floor; NumPy only."""
