"""Evaluation of networks: metrics against labels, parity with PyTorch, the first layer that differs, and reports."""
