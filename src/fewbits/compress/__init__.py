"""Model compression: pruning, weight sharing, entropy coding, and decoding."""
