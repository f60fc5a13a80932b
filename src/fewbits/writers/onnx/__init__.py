"""A Program as ONNX. Nothing here runs or checks what it writes."""
