"""How others read a Program: bytes, with nothing checked and nothing on disk."""
