"""Rules of counters: MACs of single operators from the shapes of their inputs and outputs.

`TORCH_RULES` is torch's own table of FLOP formulas (torch.utils.flop_counter) with the operators of
models.kernels. `TORCHPROFILE_RULES` adds torchprofile's extra rules: elementwise products, means and affine
norms. `layer_macs` counts one layer for hooks.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import conv_flop_count, flop_registry

# registers operators and their formulas before torch's table is read
from models.kernels import deformable, depthwise, gla, neighbourhood, selective_scan  # noqa: F401

aten = torch.ops.aten

Rule = Callable[..., int]  # (*args, out_val=out, **kwargs) of an operator -> MACs


def names(text: str) -> frozenset[str]:
    """Names of operators in a text, separated by white space."""
    return frozenset(text.split())


def convolution_backward_flops(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias_sizes: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    output_mask: list[bool],
    out_val: object = None,
) -> int:
    """FLOPs of a convolution's two gradients: each costs as much as the forward pass.

    torch's own formula (2.11 to 2.13) ignores groups in the gradient of the weight: the backward pass of a
    depthwise convolution of 64 channels counts as 65 forward passes instead of 2.
    """
    forward = conv_flop_count([*x.shape], [*weight.shape], [*grad_out.shape], transposed=transposed)
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def attention_macs(q: Tensor, k: Tensor, v: Tensor, *_args: object, **_kwargs: object) -> int:
    """MACs of attention over (..., T, D): products with all keys and values, masked ones included."""
    return math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def attention_backward_macs(_grad: Tensor, *args: Any, **_kwargs: object) -> int:  # noqa: ANN401 - q, k, v, ...
    """Twice the forward pass, whatever a kernel computes again: as on meta tensors."""
    return 2 * attention_macs(*args)


def _halved(flops: Rule) -> Rule:
    return lambda *args, **kwargs: flops(*args, **kwargs) // 2


TORCH_RULES: Mapping[Any, Rule] = {
    **{op: _halved(flops) for op, flops in flop_registry.items()},
    aten.convolution_backward: _halved(convolution_backward_flops),
    # on real tensors of a CPU; torch's table lacks it
    aten._scaled_dot_product_flash_attention_for_cpu: attention_macs,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_macs,
    aten._scaled_dot_product_flash_attention_backward: attention_backward_macs,
    aten._scaled_dot_product_efficient_attention_backward: attention_backward_macs,
    aten._scaled_dot_product_cudnn_attention_backward: attention_backward_macs,
}


def _per_output(*_args: object, out_val: Tensor, **_kwargs: object) -> int:
    return out_val.numel()


def _four_per_output(*_args: object, out_val: Tensor, **_kwargs: object) -> int:
    return 4 * out_val.numel()


def _per_output_if_affine(weight_at: int) -> Rule:
    def rule(*args: object, out_val: tuple[Tensor, ...], **_kwargs: object) -> int:
        return 0 if args[weight_at] is None else out_val[0].numel()

    return rule


def _torchprofile_convolution(x: Tensor, weight: Tensor, *_args: object, out_val: Tensor) -> int:
    """Outputs times the weights of one filter, for transposed convolutions with any stride too."""
    filters_first = out_val.shape[1] == weight.shape[0]
    return out_val.numel() * weight.shape[filters_first] * math.prod(weight.shape[2:])


# torchprofile 0.1.0, for the operators of a forward pass; it has no rules for operators of models.kernels
TORCHPROFILE_RULES: Mapping[Any, Rule] = {
    **{
        op: rule
        for op, rule in TORCH_RULES.items()
        if op is not aten.convolution_backward and str(op).startswith("aten.")
    },
    aten.convolution: _torchprofile_convolution,
    aten.mul: _per_output,
    aten.mean: _per_output,
    aten.avg_pool2d: _per_output,
    aten._adaptive_avg_pool2d: _per_output,
    aten.upsample_bilinear2d: _four_per_output,
    aten.native_layer_norm: _per_output_if_affine(2),
    aten.native_group_norm: _per_output_if_affine(1),
}


def rule_of(func: Any, rules: Mapping[Any, Rule]) -> Rule | None:  # noqa: ANN401 - an operator's overload
    """The rule of an operator; an in-place operator (baddbmm_) has that of its out-of-place form."""
    packet = func._overloadpacket
    if packet in rules:
        return rules[packet]
    name = packet.__name__
    if not name.endswith("_") or name.endswith("__"):
        return None
    return rules.get(getattr(aten, name[:-1], None))


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
STRAIGHT = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # layers whose MACs follow from their output
LAYERS = (*STRAIGHT, *_TRANSPOSED)


def layer_macs(layer: nn.Module, x: Tensor, out: Tensor) -> int:
    """MACs of one of LAYERS from its shapes, without biases."""
    if isinstance(layer, nn.Linear):
        return out.numel() * layer.in_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.modules.conv._ConvTransposeNd)
    kernel = math.prod(layer.kernel_size)
    if isinstance(layer, _TRANSPOSED):
        return x.numel() * (layer.out_channels // layer.groups) * kernel
    return out.numel() * (layer.in_channels // layer.groups) * kernel
