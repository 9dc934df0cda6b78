"""The import of a network into Relax, from PyTorch or ONNX."""
