"""The CUDA target: a step as one graph of kernels and products."""
