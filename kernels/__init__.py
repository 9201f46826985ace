"""Fused operators: each a plain reference beside its Triton kernels."""
