"""What one file may ask for: the limits of all readers, in one place (docs/threat-model.md says why).

All of them lie far above what real files need, and are checked before the memory or the time they bound is spent.
"""

MEBIBYTE = 2**20

RECIPE_BYTES = MEBIBYTE
TEXT_BYTES = 64 * MEBIBYTE
"""Of a JSON or csv file: calibration caches, graphs, tables of labels."""
ONNX_BYTES = 2**31
"""Of an ONNX file: protobuf's own limit."""
CHECKPOINT_BYTES = 64 * 1024 * MEBIBYTE
"""Of a file that long work goes on from: weights, and two moments of each."""

SEARCH_LOG_BYTES = 256 * MEBIBYTE
"""Of the log of a search: some million measurements."""

DOCUMENT_VALUES = 20_000
"""Keys, items and single values of a recipe, those that anchors repeat counted as often as they stand there."""
DOCUMENT_DEPTH = 32
"""Lists and tables inside one another."""
DIGITS = 400
"""Of a number in a text: float64's largest has 309 before the point."""
NAME_LENGTH = 4096

UNPACKED_BYTES = 1024 * MEBIBYTE
"""That a compressed array may unpack to; an uncompressed file is bounded by its own size."""
RANK = 32
"""Axes of an array."""

IMAGE_PIXELS = 2**26
IMAGE_PROPORTION = 32
"""The longer side of an image over its shorter one: resizing makes the shorter one fit."""

LABELS = 2**31
"""Labels lie below."""

SEQUENCE_ITEMS = 2**18
"""Of one list in a saved program, such as the places that a node picks."""

DECODED_FREELY = 1024 * MEBIBYTE
DECODED_TIMES = 4096
"""Bytes that weights may take when decoded: so many, and so many times those of their file."""

REPEATED_ELEMENTS = 2**24
"""Of a tensor that states more numbers than its file stores (a stride of 0)."""
REPEATED_BYTES = 16 * MEBIBYTE
"""Of tensors of a graph file whose stored numbers have several names, beyond twice what is stored."""

GRAPH_NODES = 200_000
GRAPH_ELEMENTS = 2**29
"""Numbers of one value that a graph file or a saved program computes, for a batch of 2."""
GRAPH_LIVE_BYTES = 2**33
"""Of all values of a graph file that are kept at once, for a batch of 2."""
