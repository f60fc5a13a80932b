"""Native kernels, each beside its NumPy reference and equal to it bit for bit."""
