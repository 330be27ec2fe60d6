"""Gated linear attention: a linear recurrence over tokens whose state decays by a gate for each key channel.

Source: arXiv:2312.06635, without its normaliser; DiG (arXiv:2405.18428) uses it. For each head, with S = 0
before the first token:

    S_i = diag(exp(log_decay_i)) S_(i-1) + k_i v_i^T,    out_i = K^(-1/2) S_i^T q_i

Back ends: `torch`, a chunked form in plain torch that runs anywhere, and `fla`, the Triton kernels of
flash-linear-attention, on CUDA. To torch.compile and to FLOP counters the whole is one operator: its FLOPs
are those of the recurrence, whatever the back end and the chunk. The exception is fla with gradients: it is
called directly, with its own backward pass, and torch.compile breaks the graph there.
Letters: N batch, T tokens, h heads, K key channels and V value channels of a head, C tokens of a chunk.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernels.backends import CudaPackage
from models.kernels.operators import count_flops, operator

Backend = Literal["auto", "torch", "fla"]
FLA = CudaPackage("fla", {"fla": "flash-linear-attention", "triton": "triton"})

CHUNK = 32  # tokens between two states
PAIRS = 4  # tokens of a chunk whose pairs are computed one by one; both are powers of 2


def gla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, backend: Backend = "auto") -> Tensor:
    """Attend: (N, T, h, K), (N, T, h, K), (N, T, h, V), (N, T, h, K) -> (N, T, h, V), in the type of v.

    Args:
        q: queries, not scaled.
        k: keys.
        v: values.
        log_decay: logarithms of the gates, at most 0; a large negative value resets the state.
        backend: auto is fla for CUDA tensors where it is installed, otherwise torch.

    Raises:
        ValueError: backend fla where it cannot run, or for tensors that are not on CUDA.
    """
    if not FLA.takes(backend, q.device):
        return _gla(q, k, v, log_decay)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, log_decay)):
        return gla_fla(q, k, v, log_decay)
    return _gla_fla(q, k, v, log_decay)


def gla_reference(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """The recurrence token by token, in the type of its inputs; the back ends are tested against it."""
    state = q.new_zeros(*q.shape[:1], *q.shape[2:], v.shape[-1])  # (N, h, K, V)
    outs = []
    for q_i, k_i, v_i, log_decay_i in zip(*(x.unbind(1) for x in (q, k, v, log_decay)), strict=True):
        state = log_decay_i.exp()[..., None] * state + k_i[..., None] * v_i[..., None, :]
        outs.append((q_i[..., None] * state).sum(-2) * q.shape[-1] ** -0.5)
    return torch.stack(outs, dim=1)


def gla_fla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """flash-linear-attention, forward and backward."""
    from fla.ops.gla import chunk_gla

    out: Tensor = chunk_gla(*(x.contiguous() for x in (q, k, v, log_decay)))[0]
    return out.to(v.dtype)


# the chunked form


def gla_chunked(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Plain torch without a loop over tokens: float32 at least inside, the result in the type of v.

    No exponent is above 0, so gates near 0 cannot overflow: a decay over many tokens is split at a token
    between query and key. Differences are taken only of sums of logarithms over a chunk, so no decay is lost
    in the rounding of a long sum.
    """
    dtype, tokens, scale = v.dtype, v.shape[1], q.shape[-1] ** -0.5
    q, k, v, log_decay = (_chunks(x) for x in (q, k, v, log_decay))  # (N, h, chunks, C, K or V)
    q = q * scale
    since = log_decay.cumsum(-2)  # from before the chunk's first token up to this one
    whole = since[..., -1:, :]  # (N, h, chunks, 1, K)

    # from earlier chunks: the state before each
    added = (k * (whole - since).exp()).mT @ v  # (N, h, chunks, K, V)
    before = _one_later(_decaying_sums(added, whole.mT))
    out = (q * since.exp()) @ before

    # within a chunk: the second half of each part from its first half, for smaller and smaller parts
    for half in _halves():
        (_, q2), (k1, _), (v1, _), (since1, since2) = (_in_halves(x, half) for x in (q, k, v, since))
        middle = since1[..., -1:, :]
        weights = (q2 * (since2 - middle).exp()) @ (k1 * (middle - since1).exp()).mT
        _in_halves(out, half)[1].add_(weights @ v1)

    # the remaining pairs of tokens, one by one
    qp, kp, vp = (_in_pairs(x) for x in (q, k, v))  # (N, h, chunks, parts, PAIRS, K or V)
    weights = (qp[..., :, None, :] * _pair_decays(since) * kp[..., None, :, :]).sum(-1)
    _in_pairs(out).add_(weights @ vp)
    return _tokens(out, tokens).to(dtype)


def gla_chunked_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of `gla_chunked` with respect to q, k, v and log_decay, from its inputs alone.

    The terms are those of the forward pass. The gradient of a weight q_i exp(since_i - since_j) k_j with
    respect to since_i is that of q_i, times q_i; with respect to since_j that of k_j, times -k_j.
    """
    dtypes, tokens, scale = [x.dtype for x in (q, k, v, log_decay)], v.shape[1], q.shape[-1] ** -0.5
    grad, q, k, v, log_decay = (_chunks(x) for x in (grad, q, k, v, log_decay))
    q = q * scale
    since = log_decay.cumsum(-2)
    whole = since[..., -1:, :]

    read, kept = since.exp(), (whole - since).exp()
    before = _one_later(_decaying_sums((k * kept).mT @ v, whole.mT))
    # the gradient of the state after each chunk: the same sums, backwards
    wanted = ((q * read).mT @ grad).flip(2)
    after = _one_later(_decaying_sums(wanted, whole.mT.flip(2))).flip(2)
    dq = read * (grad @ before.mT)
    dk = kept * (v @ after.mT)
    dv = (k * kept) @ after
    d_whole = (k * dk).sum(-2, keepdim=True) + whole.exp() * (before * after).sum(-1)[..., None, :]

    for half in _halves():
        (_, q2), (k1, _), (v1, _), (since1, since2), (_, grad2) = (
            _in_halves(x, half) for x in (q, k, v, since, grad)
        )
        middle = since1[..., -1:, :]
        decay1, decay2 = (middle - since1).exp(), (since2 - middle).exp()
        q2, k1 = q2 * decay2, k1 * decay1
        d_weights = grad2 @ v1.mT
        _in_halves(dq, half)[1].add_(decay2 * (d_weights @ k1))
        _in_halves(dk, half)[0].add_(decay1 * (d_weights.mT @ q2))
        _in_halves(dv, half)[0].add_((q2 @ k1.mT).mT @ grad2)

    qp, kp, vp, gradp = (_in_pairs(x) for x in (q, k, v, grad))
    decays = _pair_decays(since)
    from_k = decays * kp[..., None, :, :]
    weights = (qp[..., :, None, :] * from_k).sum(-1)
    d_weights = (gradp @ vp.mT)[..., None]
    _in_pairs(dq).add_((d_weights * from_k).sum(-2))
    _in_pairs(dk).add_((d_weights * decays * qp[..., :, None, :]).sum(-3))
    _in_pairs(dv).add_(weights.mT @ gradp)

    d_since = q * dq - k * dk
    d_log_decay = d_since.flip(-2).cumsum(-2).flip(-2) + d_whole
    grads = (_tokens(x, tokens) for x in (scale * dq, dk, dv, d_log_decay))
    dq, dk, dv, d_log_decay = (x.to(dtype) for x, dtype in zip(grads, dtypes, strict=True))
    return dq, dk, dv, d_log_decay


def _chunks(x: Tensor) -> Tensor:
    """(N, T, h, K) -> (N, h, chunks, C, K), in float32 at least.

    The last chunk is padded with tokens of zeros, which leave the state unchanged.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    x = F.pad(x, (0, 0, 0, 0, 0, -x.shape[1] % CHUNK))
    return x.unflatten(1, (-1, CHUNK)).permute(0, 3, 1, 2, 4)


def _tokens(x: Tensor, tokens: int) -> Tensor:
    """(N, h, chunks, C, K) -> (N, T, h, K), without the padding."""
    return x.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :tokens].contiguous()


def _halves() -> Iterator[int]:
    """Tokens of half a chunk, of a quarter, ... down to PAIRS."""
    half = CHUNK // 2
    while half >= PAIRS:
        yield half
        half //= 2


def _in_halves(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The first and the second halves of parts of a chunk: (..., C, K) -> two of (..., parts, half, K)."""
    first, second = x.unflatten(-2, (-1, 2, half)).unbind(-3)
    return first, second


def _in_pairs(x: Tensor) -> Tensor:
    return x.unflatten(-2, (-1, PAIRS))


def _pair_decays(since: Tensor) -> Tensor:
    """Decay from each token of a part to each later one: (..., C, K) -> (..., parts, PAIRS, PAIRS, K)."""
    since = _in_pairs(since)
    between = since[..., :, None, :] - since[..., None, :, :]
    future = torch.ones(PAIRS, PAIRS, dtype=torch.bool, device=since.device).triu(1)
    return between.masked_fill_(future[..., None], float("-inf")).exp_()


def _decaying_sums(added: Tensor, log_decay: Tensor) -> Tensor:
    """The state after each chunk: what the chunk added, plus its decay times the state before it.

    By doubling: after s steps each holds the sum over the last 2^s chunks. (N, h, chunks, K, V) and the
    decays (N, h, chunks, K, 1) -> (N, h, chunks, K, V).
    """
    reach = 1
    while reach < added.shape[2]:
        earlier = log_decay[:, :, reach:].exp() * added[:, :, :-reach]
        added = torch.cat([added[:, :, :reach], earlier.add_(added[:, :, reach:])], dim=2)
        longer = log_decay[:, :, reach:] + log_decay[:, :, :-reach]
        log_decay = torch.cat([log_decay[:, :, :reach], longer], dim=2)
        reach *= 2
    return added


def _one_later(states: Tensor) -> Tensor:
    """States after each chunk -> states before each chunk; zeros before the first."""
    return F.pad(states[:, :, :-1], (0, 0, 0, 0, 1, 0))


# the operators


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, log_decay: torch.Size) -> int:
    """Two products per token and head, k v^T and the state times q; the decay is not counted."""
    return 2 * 2 * q.numel() * v[-1]


_gla = operator(
    "diffusion_bench::gla",
    "Tensor q, Tensor k, Tensor v, Tensor log_decay",
    _flops,
    forward=gla_chunked,
    backward=gla_chunked_backward,
    like=2,
)


@torch.library.custom_op("diffusion_bench::gla_fla", mutates_args=())
def _gla_fla(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    return gla_fla(q, k, v, log_decay)


@_gla_fla.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    return v.new_empty(v.shape)


count_flops("diffusion_bench::gla_fla", _flops)
