"""What runs a Program: torch, and sessions over ONNX bytes. Each gives the reference's codes where it promises to."""
