"""Mamba's selective scan: a linear recurrence whose decay and input depend on the token.

Source: arXiv:2312.00752, its Algorithm 2; the gate and the skip belong to its block (Figure 3).
Letters: N batch, T tokens, I channels, S states a channel.

    d = softplus(delta), a = -exp(decay)
    h[t] = exp(d[t] a) h[t-1] + d[t] u[t] b[t],  h = 0 before the first token
    y[t] = (c[t] . h[t] + skip u[t]) silu(z[t])

Fast on a CPU: the plain form, which prepares the decays and inputs of a chunk of tokens at once, so that one
product-and-sum a token is left in the loop. No exponent is positive and nothing is divided, so nothing
overflows. Fast on CUDA: the kernel of the package mamba-ssm.

The plain recurrence is one operator, `backbones::selective_scan`, with its gradient, its shapes on the meta
device, and a FLOP formula: 4 multiply-accumulates for each token, channel and state (d a, h's decay, d u b,
c h) and twice as many backward. Softplus, skip and gate are elementwise and free, as elsewhere.
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

BACKENDS = ("auto", "plain", "mamba-ssm")

_CHUNK = 16  # tokens; on a CPU core with 1 MiB of cache 8 to 32 are equally fast


def selective_scan(
    u: Tensor,
    delta: Tensor,
    decay: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    z: Tensor,
    backend: str = "auto",
) -> Tensor:
    """Scan the tokens in their order, all channels at once, in float32 or wider.

    Args:
        u: inputs (N, T, I).
        delta: steps before their softplus (N, T, I).
        decay: logarithms of minus the rates a (I, S).
        b: how the input enters the states (N, T, S).
        c: how the states are read (N, T, S).
        skip: what of the input is added to the output (I,).
        z: the gate before its SiLU (N, T, I).
        backend: one of BACKENDS; auto takes mamba-ssm for CUDA tensors where it is installed, and plain
            elsewhere and for float64. Meta tensors always take plain, so that MACs are counted.

    Returns:
        y (N, T, I), of the type of u.

    Raises:
        ValueError: mamba-ssm asked for by name for float64 or for tensors that are not on a CUDA device.
    """
    fits = u.is_cuda and u.dtype != torch.float64
    if backend == "mamba-ssm" and not (fits or u.is_meta):
        raise ValueError(
            f"scan: mamba-ssm takes CUDA tensors of at most 32 bits, got {u.dtype} on {u.device}; "
            "plain would work"
        )
    if fits and (backend == "mamba-ssm" or (backend == "auto" and installed())):
        return selective_scan_mamba_ssm(u, delta, decay, b, c, skip, z)
    return selective_scan_plain(u, delta, decay, b, c, skip, z)


def check_backend(backend: str) -> str:
    """Return a back end's name if it can be used here.

    Raises:
        ValueError: no such back end, or one that is not installed.
    """
    if backend not in BACKENDS:
        raise ValueError(f"scan: must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "mamba-ssm" and not installed():
        raise ValueError("scan: mamba-ssm is not installed; pip install mamba-ssm beside a torch for CUDA")
    return backend


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def installed() -> bool:
    """Say whether mamba-ssm is there with its compiled scan; nothing is imported."""
    return all(importlib.util.find_spec(name) for name in ("mamba_ssm", "selective_scan_cuda"))


def selective_scan_reference(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """The recurrence as it is written, a token at a time: what the others are held to."""
    d, a = F.softplus(delta), -torch.exp(decay)
    h = u.new_zeros(len(u), *a.shape)  # (N, I, S)
    y = []
    for t in range(u.shape[1]):
        h = torch.exp(d[:, t, :, None] * a) * h + (d[:, t] * u[:, t])[..., None] * b[:, t, None]
        y.append((h * c[:, t, None]).sum(-1) + skip * u[:, t])
    return torch.stack(y, dim=1) * F.silu(z)


def selective_scan_plain(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """The chunked form in plain PyTorch, for any device."""
    d, a = F.softplus(delta.to(_wide(delta))), -torch.exp(decay.to(_wide(decay)))
    y = _scan(u, d, a, b, c)
    return ((y + skip * u) * F.silu(z)).to(u.dtype)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def selective_scan_mamba_ssm(
    u: Tensor, delta: Tensor, decay: Tensor, b: Tensor, c: Tensor, skip: Tensor, z: Tensor
) -> Tensor:
    """The CUDA kernel of mamba-ssm, gradients included. torch.compile leaves it as it is."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    a = -torch.exp(decay.float())
    # it wants tokens last, one type for all that depends on the token, and float32 for the rest
    u, delta, b, c, z = (given.to(u.dtype).transpose(1, 2) for given in (u, delta, b, c, z))
    y: Tensor = selective_scan_fn(u, delta, a, b, c, D=skip.float(), z=z, delta_softplus=True)
    return y.transpose(1, 2)


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _tokens_first(*given: Tensor) -> list[Tensor]:
    """(N, T, ...) -> (T, N, ...), contiguous, in float32 or wider."""
    return [x.to(_wide(x)).transpose(0, 1).contiguous() for x in given]


def _chunk(u: Tensor, d: Tensor, a: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states (t, N, I, S) of t tokens, u and d (t, N, I), b (t, N, S), after a state h."""
    decays = torch.mul(d[..., None], a).exp_()
    states = (d * u)[..., None] * b[:, :, None]
    for decay, state in zip(decays.unbind(), states.unbind(), strict=True):
        h = state.addcmul_(decay, h)  # (N, I, S), in its place among the states
    return decays, states


@torch.library.custom_op("backbones::selective_scan", mutates_args=())
def _scan(u: Tensor, d: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """c[t] . h[t] of u and d (N, T, I), a (I, S), b and c (N, T, S): (N, T, I), of the type of u."""
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    a = a.to(_wide(a))
    us, ds, bs, cs = _tokens_first(u, d, b, c)
    h = ds.new_zeros(len(u), *a.shape)
    for start in range(0, len(us), _CHUNK):
        part = slice(start, start + _CHUNK)
        _, states = _chunk(us[part], ds[part], a, bs[part], h)
        y[:, part] = torch.matmul(states, cs[part, ..., None])[..., 0].transpose(0, 1)
        h = states[-1]
    return y


@torch.library.custom_op("backbones::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad: Tensor, u: Tensor, d: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, d, a, b and c from that of y: the states again, then the recurrence backwards.

    The first pass keeps one state a chunk; the others are made again when their chunk is reached.
    """
    types = [given.dtype for given in (u, d, a, b, c)]
    a = a.to(_wide(a))
    gs, us, ds, bs, cs = _tokens_first(grad, u, d, b, c)
    parts = [slice(start, start + _CHUNK) for start in range(0, len(us), _CHUNK)]
    befores = [ds.new_zeros(len(u), *a.shape)]  # the state before each chunk
    for part in parts[:-1]:
        befores.append(_chunk(us[part], ds[part], a, bs[part], befores[-1])[1][-1].clone())

    du, dd, db, dc = (torch.empty_like(x) for x in (us, ds, bs, cs))
    da = torch.zeros_like(a)
    later = torch.zeros_like(befores[0])  # the gradient that reaches a token's state through the next token
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
    made = (du.transpose(0, 1), dd.transpose(0, 1), da, db.transpose(0, 1), dc.transpose(0, 1))
    du, dd, da, db, dc = (x.to(kind).contiguous() for x, kind in zip(made, types, strict=True))
    return du, dd, da, db, dc


@_scan.register_fake
def _(u: Tensor, d: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


@_scan_backward.register_fake
def _(
    grad: Tensor, u: Tensor, d: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    du, dd, da, db, dc = (
        torch.empty_like(given, memory_format=torch.contiguous_format) for given in (u, d, a, b, c)
    )
    return du, dd, da, db, dc


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = _scan_backward(grad, *ctx.saved_tensors)  # type: ignore[attr-defined]
    return gradients


_scan.register_autograd(_gradients, setup_context=_keep)


@register_flop_formula(torch.ops.backbones.selective_scan)
def _flops(u: torch.Size, d: torch.Size, a: torch.Size, *_: object, **__: object) -> int:
    return 2 * 4 * u.numel() * a[1]


@register_flop_formula(torch.ops.backbones.selective_scan_backward)
def _flops_backward(
    grad: torch.Size, u: torch.Size, d: torch.Size, a: torch.Size, *_: object, **__: object
) -> int:
    return 2 * _flops(u, d, a)
