"""The import of a network into Relax, from torch.export or ONNX."""
