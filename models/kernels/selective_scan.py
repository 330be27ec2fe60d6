"""Mamba's selective scan: a linear recurrence whose decay and input depend on the token.

Source: arXiv:2312.00752, its Algorithm 2; the gate and the skip belong to its block (Figure 3).
Letters: N batch, T tokens, I channels, S states per channel.

    d = softplus(delta), a = -exp(decay)
    h[t] = exp(d[t] a) h[t-1] + d[t] u[t] b[t],  h = 0 before the first token
    y[t] = (c[t] . h[t] + skip u[t]) silu(z[t])

Back ends: `torch`, in plain torch for any device, computes the decays and inputs of a chunk of tokens at
once, so that the loop has one multiply-add per token; no exponent is positive and nothing is divided, so
nothing overflows. `mamba-ssm` is that package's CUDA kernel.

To torch.compile and to FLOP counters the recurrence is one operator with its gradient: 4 multiply-accumulates
per token, channel and state (d a, h's decay, d u b, c h) and twice as many backward. Softplus, skip and gate
are elementwise and not counted, as elsewhere. The exception is mamba-ssm with gradients: it is called
directly, with its own backward pass, and torch.compile breaks the graph there.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import CudaPackage
from models.kernels.operators import count_flops, operator
from models.layers.precision import widest

Backend = Literal["auto", "torch", "mamba-ssm"]
MAMBA_SSM = CudaPackage(
    "mamba-ssm",
    {  # the second is its compiled part
        "mamba_ssm": "mamba-ssm: the extra mamba",
        "selective_scan_cuda": "mamba-ssm: the extra mamba",
    },
)

CHUNK = 16  # tokens whose states are in memory at once: N x 16 x I x S numbers


def selective_scan(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    z: Tensor,
    backend: Backend = "auto",
) -> Tensor:
    """Scan the tokens in their order, all channels at once, in float32 or wider.

    Args:
        u: inputs (N, T, I).
        delta: steps before their softplus (N, T, I).
        decay: logarithms of minus the rates a (I, S).
        b: weights of the input in the states (N, T, S).
        c: weights of the states in the output (N, T, S).
        skip: weight of the input in the output (I,).
        z: the gate before its SiLU (N, T, I).
        backend: auto is mamba-ssm for CUDA tensors where it is installed, otherwise torch.

    Returns:
        y (N, T, I), of the type of u.

    Raises:
        ValueError: backend mamba-ssm where it cannot run, or for tensors that are not on CUDA.
    """
    given = (u, delta, decay, b, c, skip, z)
    if not MAMBA_SSM.takes(backend, u.device):
        return selective_scan_chunked(*given)
    if torch.is_grad_enabled() and any(x.requires_grad for x in given):
        return selective_scan_mamba_ssm(*given)
    return _whole_mamba_ssm(*given)


def selective_scan_reference(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """The recurrence token by token; the back ends are tested against it."""
    d, a = F.softplus(delta), -torch.exp(decay)
    h = u.new_zeros(len(u), *a.shape)  # (N, I, S)
    y = []
    for t in range(u.shape[1]):
        h = torch.exp(d[:, t, :, None] * a) * h + (d[:, t] * u[:, t])[..., None] * b[:, t, None]
        y.append((h * c[:, t, None]).sum(-1) + skip * u[:, t])
    return torch.stack(y, dim=1) * F.silu(z)


def selective_scan_mamba_ssm(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """mamba-ssm's kernel, forward and backward; float32 at most."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    a = -torch.exp(decay.float())
    # the kernel takes tokens last, one type for all that depends on the token, and float32 for the rest
    u, delta, b, c, z = (given.to(u.dtype).transpose(1, 2) for given in (u, delta, b, c, z))
    y: Tensor = selective_scan_fn(u, delta, a, b, c, D=skip.float(), z=z, delta_softplus=True)
    return y.transpose(1, 2)


@torch.library.custom_op("backbones::selective_scan_mamba_ssm", mutates_args=())
def _whole_mamba_ssm(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """mamba-ssm without gradients, as one operator for torch.compile and counters."""
    return selective_scan_mamba_ssm(u, delta, decay, b, c, skip, z).contiguous()


@_whole_mamba_ssm.register_fake
def _(u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def selective_scan_chunked(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """Plain torch, for any device."""
    dtype = widest(u)
    d, a, wide = F.softplus(delta.to(dtype)), -torch.exp(decay.to(dtype)), u.to(dtype)
    y = _scan(wide, d, a, b.to(dtype), c.to(dtype)) + skip * wide
    return (y * F.silu(z.to(dtype))).to(u.dtype)


def _tokens_first(*given: Tensor) -> list[Tensor]:
    """(N, T, ...) -> (T, N, ...), contiguous."""
    return [x.transpose(0, 1).contiguous() for x in given]


def _chunk(u: Tensor, d: Tensor, a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states (t, N, I, S) of t tokens, u and d (t, N, I), b (t, N, S), after a state h."""
    decays = torch.mul(d[..., None], a).exp_()
    states = (d * u)[..., None] * b[:, :, None]
    for decay, state in zip(decays.unbind(), states.unbind(), strict=True):
        h = state.addcmul_(decay, h)  # (N, I, S), in place
    return decays, states


def scan(u: Tensor, d: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """c[t] . h[t] of u and d (N, T, I), a (I, S), b and c (N, T, S), all of one type: (N, T, I)."""
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    us, ds, bs, cs = _tokens_first(u, d, b, c)
    h = ds.new_zeros(len(u), *a.shape)
    for start in range(0, len(us), CHUNK):
        part = slice(start, start + CHUNK)
        _, states = _chunk(us[part], ds[part], a, bs[part], h)
        y[:, part] = torch.matmul(states, cs[part, ..., None])[..., 0].transpose(0, 1)
        h = states[-1]
    return y


def scan_backward(
    grad: Tensor, u: Tensor, d: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, d, a, b and c from that of y: recomputes the states, then the recurrence backwards.

    The first pass keeps one state per chunk; the others are recomputed when their chunk is reached.
    """
    gs, us, ds, bs, cs = _tokens_first(grad, u, d, b, c)
    parts = [slice(start, start + CHUNK) for start in range(0, len(us), CHUNK)]
    befores = [ds.new_zeros(len(u), *a.shape)]  # the state before each chunk
    for part in parts[:-1]:
        befores.append(_chunk(us[part], ds[part], a, bs[part], befores[-1])[1][-1].clone())

    du, dd, db, dc = (torch.empty_like(x) for x in (us, ds, bs, cs))
    da = torch.zeros_like(a)
    later = torch.zeros_like(befores[0])  # gradient of a token's state through the next token
    for part, before in zip(reversed(parts), reversed(befores), strict=True):
        decays, states = _chunk(us[part], ds[part], a, bs[part], before)
        dc[part] = torch.matmul(gs[part, :, None], states)[:, :, 0]
        dstates = gs[part, ..., None] * cs[part, :, None]
        for decay, dstate in zip(reversed(decays.unbind()), reversed(dstates.unbind()), strict=True):
            later = dstate.add_(later).mul(decay)
        db[part] = torch.matmul((ds[part] * us[part])[:, :, None], dstates)[:, :, 0]
        dinput = torch.matmul(dstates, bs[part, ..., None])[..., 0]  # of d u
        dpower = dstates.mul_(decays).mul_(torch.cat([before[None], states[:-1]]))  # of d a
        du[part] = dinput * ds[part]
        dd[part] = (dpower * a).sum(-1).addcmul_(dinput, us[part])
        da += dpower.mul_(ds[part, ..., None]).sum((0, 1))
    du, dd, db, dc = _tokens_first(du, dd, db, dc)  # and back
    return du, dd, da, db, dc


def _flops(u: tuple[int, ...], d: tuple[int, ...], a: tuple[int, ...], *_: tuple[int, ...]) -> int:
    return 2 * 4 * math.prod(u) * a[1]


_scan = operator(
    "backbones::selective_scan",
    "Tensor u, Tensor d, Tensor a, Tensor b, Tensor c",
    _flops,
    forward=scan,
    backward=scan_backward,
)
count_flops("backbones::selective_scan_mamba_ssm", _flops)
