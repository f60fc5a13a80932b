"""Encodings of a calibrated model in the files of other tools."""
