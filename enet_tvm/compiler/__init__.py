"""The compiler: from a trained network to a shared library for one target.

`compile` is the way in. It uses

- `frontend`: the import from PyTorch or ONNX into Relax;
- `pipeline`: the phases, whose `passes` rewrite the network into `ops`, the project's own dialect, and lower it to `kernels`;
- `quantisation`: the codes of int8, and the calibration that they need;
- `cuda` and `linking`: device code and the shared library, for any target;
- `inspection` and `target_check`: whether a library will load on its target, and what this machine lacks to compile for one;
- `tuning_log`, `tuning_keys` and `traces`: what tuning has measured, and how a kernel finds it.
"""
