"""How we store a Program: the `.fewbits` file. One safetensors file that verifies itself and holds no code."""
