"""Fused operators: each a plain reference beside its Triton kernels. `from kernels.conv_fir import conv_fir`, and so on.

CUDA tensors take the Triton kernels, CPU tensors the reference; under `TRITON_INTERPRET=1` CPU tensors take the kernels too,
in Triton's interpreter. `python -m kernels.check` verifies every operator on this machine's GPU.
"""
