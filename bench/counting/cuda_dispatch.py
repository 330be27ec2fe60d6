"""CUDA behaviour of torch that the meta device lacks: autocast and fused attention.

For predictions only. The lists come from torch's manual ("Autocast Op Reference", CUDA ops); rms_norm, which
differs between versions, is tested on the installed torch.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map_only

from bench.counting.rules import names
from models.layers.precision import types_kept

aten = torch.ops.aten


TO_LOWER = names(
    "__matmul__ __rmatmul__ addbmm addmm addmv addr baddbmm bmm chain_matmul conv1d conv2d conv3d "
    "conv_transpose1d conv_transpose2d conv_transpose3d einsum linear matmul mm multi_dot mv prelu"
)
TO_FLOAT32 = names(
    "__pow__ __rpow__ acos asin binary_cross_entropy_with_logits cdist cosh cosine_embedding_loss "
    "cosine_similarity dist erfinv exp expm1 group_norm hinge_embedding_loss huber_loss kl_div l1_loss "
    "layer_norm log log10 log1p log2 logsumexp margin_ranking_loss mse_loss multi_margin_loss "
    "multilabel_margin_loss nll_loss norm pdist poisson_nll_loss pow reciprocal renorm rsqrt sinh "
    "smooth_l1_loss soft_margin_loss softplus tan triplet_margin_loss"
)
RESULT_IN_FLOAT32 = names(  # the result type is set; the inputs are not converted
    "cumprod cumsum linalg_matrix_norm linalg_vector_norm log_softmax prod softmax sum"
)
TO_WIDEST = names(
    "addcdiv addcmul atan2 bilinear cat concat concatenate cross dot grid_sample index_put scatter_add stack "
    "tensordot vdot"
)


@functools.cache
def _rms_norm_in_float32() -> bool:
    """Whether autocast of this torch runs rms_norm in float32: 2.13 does, 2.11 does not."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        with FakeTensorMode(), torch.inference_mode():  # needs no GPU
            x = torch.empty(2, 4, dtype=torch.bfloat16, device="cuda")
            return F.rms_norm(x, (4,)).dtype == torch.float32
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


class CudaRules(TorchFunctionMode):
    """Context manager in which functions of torch called on meta tensors behave as on CUDA.

    A weight is cast once and the copy is kept until the end, as in torch.autocast.
    Calls inside torch's own Python functions, such as the products of nn.MultiheadAttention, are not
    intercepted and keep their types.

    Args:
        autocast: lower type of torch.autocast; None: no autocast.
    """

    def __init__(self, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.autocast = autocast
        self._to_float32 = TO_FLOAT32 | ({"rms_norm"} if _rms_norm_in_float32() else set())
        self._casts: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        keywords = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        casts = self.autocast is not None and not types_kept.get()
        if casts and (name in TO_LOWER or func is F.scaled_dot_product_attention):
            args, keywords = tree_map_only(Tensor, self._lower, (args, keywords))
        elif casts and (name in self._to_float32 or (name in TO_WIDEST and _holds_float32((args, keywords)))):
            args, keywords = tree_map_only(Tensor, _float32, (args, keywords))
        elif casts and name in RESULT_IN_FLOAT32 and _is_low(args[0]) and not _names_type(args, keywords):
            keywords["dtype"] = torch.float32
        return (fused_attention if func is F.scaled_dot_product_attention else func)(*args, **keywords)

    def __exit__(self, *error: object) -> None:
        self._casts.clear()
        super().__exit__(*error)

    def _lower(self, x: Tensor) -> Tensor:
        if x.dtype == self.autocast or not _may_cast(x):
            return x
        assert self.autocast is not None
        if not (x.is_leaf and x.requires_grad and x.dtype == torch.float32):
            return x.to(self.autocast)
        if id(x) not in self._casts:
            self._casts[id(x)] = (x, x.to(self.autocast))
        return self._casts[id(x)][1]


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention that saves its output and row statistics for the backward pass, not the scores.

    (N, heads, T, d) -> (N, heads, T, d). CUDA uses the flash kernel in half precision and the
    memory-efficient kernel otherwise; both save the same tensors.
    """
    if enable_gqa:
        groups = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    if attn_mask is None and q.dtype in (torch.bfloat16, torch.float16):
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[0]
    bias = attn_mask
    if bias is not None:
        bias = bias.to(q.dtype).expand(*q.shape[:-1], k.shape[-2])
    keeps = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, keeps, dropout_p, is_causal, scale=scale
    )[0]


def _may_cast(x: Tensor) -> bool:
    return x.is_floating_point() and x.dtype != torch.float64


def _is_low(x: object) -> bool:
    return isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)


def _names_type(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> bool:
    return any(isinstance(value, torch.dtype) for value in (*args, *keywords.values()))


def _holds_float32(values: object) -> bool:
    return any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in tree_iter(values))


def _float32(x: Tensor) -> Tensor:
    return x.float() if _may_cast(x) else x
