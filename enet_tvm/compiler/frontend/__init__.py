"""From a network to Relax: torch.export and ONNX."""
