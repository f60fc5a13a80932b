"""Recipes that come with fewbits, one YAML file each."""
