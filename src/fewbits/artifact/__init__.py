"""The `.fewbits` file of a Program, which verifies itself and holds no code."""
