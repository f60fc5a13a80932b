"""How we store a Program: the `.fewbits` file, which verifies itself and holds no code."""
