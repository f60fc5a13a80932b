"""Data sets and weights from files, and what a network expects of its data.

Data: `sets` (by name), `split` (what a data set is), `images` (photographs in a folder), `language` (texts),
`readers` and `llama2c` (files), `shifted` (training images moved). What a network expects: `normalize`, `preparation`.
`weights` loads a network's weights from a file.
"""
