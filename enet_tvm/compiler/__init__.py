"""From a trained network to a library of one target.

`compile` leads, by way of

- `frontend`: from PyTorch or ONNX to Relax;
- `pipeline`: the phases, with `passes` on `ops`, the project's own dialect, which lower to `kernels`;
- `quantisation`: what int8 stands for;
- `cuda` and `linking`: device code and the shared library, for any target;
- `inspection` and `target_check`: whether the result will load there, and what a target lacks here;
- `tuning_log`, `tuning_keys` and `traces`: what tuning found out about the kernels.
"""
