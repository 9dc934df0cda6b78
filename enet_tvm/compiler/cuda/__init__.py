"""Device code for NVIDIA GPUs, made and looked at on a machine without a GPU, a driver or a CUDA toolkit.

NVRTC and ptxas come as Python packages (the extra `cuda`); TVM's CUDA backend, which wants a driver before it generates code,
is given stand-ins for it (`backend`). What is shipped is PTX, of the ISA that the oldest driver of a target understands; the
driver of the device translates it when it loads it.
"""
