"""Operators that keep what they compute between two passes over memory: one a file, with its Triton kernel.

Each has three names: `f` is called and decides by its inputs, `f_reference` is plain torch and runs on a CPU,
for meta tensors and in float64, `f_triton` is the Triton kernel. Gradients of a kernel are plain torch: it
saves its inputs and computes again what lies between. Images are (N, H, W, C), channels last.
"""
