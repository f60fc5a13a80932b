"""fewbits takes a float PyTorch model and gives back the same model in few bits, with proof."""
