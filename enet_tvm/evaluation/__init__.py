"""How right a network is: metrics against labels, parity with PyTorch, the layer where two parts, and reports of it."""
