"""The jobs that the command line runs from start to end: `quantize` a network, `compress` its weights."""
