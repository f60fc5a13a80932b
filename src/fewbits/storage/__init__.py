"""How files of tensors are laid out on the disk: under a digest over every bit, without code or pickles."""
