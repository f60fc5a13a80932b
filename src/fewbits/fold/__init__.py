"""Folding: batch norm, constants, and larger operators as the smaller ones the program knows; outputs stay equal."""
