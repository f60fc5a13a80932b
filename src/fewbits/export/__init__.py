"""How others read a Program. Each form writes bytes; nothing here runs or verifies them."""
