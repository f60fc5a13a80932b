"""How a Program executes elsewhere: torch, and sessions over ONNX bytes. Each gives the reference's codes."""
