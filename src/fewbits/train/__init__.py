"""Quantization-aware training: one paper per file, the registry of methods, and the training loop."""
