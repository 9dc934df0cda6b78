"""What kernels of CPUs and of GPUs are made with, and what the pipeline knows of a template."""
