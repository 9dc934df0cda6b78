"""What the kernels of CPUs and of GPUs are both made with, and the templates as the pipeline knows them."""
