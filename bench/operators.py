"""What does a pass ask of a device, operator by operator, and where does its time go?

    python -m bench.operators --model FCDM-XL DiT-XL/2 --precision bf16
    python -m bench.operators --model FCDM-XL --by module --precision bf16
    python -m bench.operators --model FCDM-XL --by op --work training --batch 256 --precision bf16
    python -m bench.operators --model FCDM-S DiT-S/2 --batch 4 --profile --out records.jsonl

Counted, from the sizes of meta tensors: nothing is computed. A kind is depthwise, pointwise (1x1) or any
other convolution, linear (products with weights), attention (with its softmax, fused or not), scan (linear
attention and selective scans), norm, elementwise (with reductions and pooling) or movement (copies, casts,
concatenation, padding, pixel shuffles, look-ups). MACs are those of bench.flops; one MAC is two FLOPs.

Eager bytes: each kernel of an eager pass on CUDA reads its inputs and writes its outputs, caches aside; views
are free, and an expanded dimension is read once. One kernel for an operator, but two for a convolution with
bias that is not depthwise (cuDNN has none), a group norm, and a layer norm of rows that do not lie together
(copied first), and one for each gradient of a convolution. Attention is one kernel that writes no scores.

Fused bytes, ideal fusion: only products move anything, convolutions, linear layers, attention and scans: each
reads its operands and its weights and writes its result, once. Norms, elementwise work and movements ride on
the product that their largest input comes from, the latest of equals, and cost nothing, however much of the
image they look at; what they take from elsewhere, a residual, a saved activation, a vector of the condition,
that product reads, once. A softmax between two products rides too, but its scores are written and read:
attention is not fused where the network does not.

Inference: weights and x in the precision itself. Training: forward and backward pass, without loss and
optimizer, in eval mode; bf16 and fp16 are torch.autocast. Gradients of attention cost twice its forward pass.

--profile runs the pass on the device at hand, in a process of its own, under torch.profiler, and sets the
measured share of time beside each kind; "other" is time in no operator, on a CPU that of Python. It slows a
pass; only the shares are for comparing. The part for CUDA was written without a GPU and has never run.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench import cases, cli, floors, output, worker
from bench.record import Part, Profiled, Record, Run, Size, Skipped, Work, height_width, size_text

if TYPE_CHECKING:
    from torch import nn

    from models.task import Task

MODELS = ("FCDM-XL", "DiT-XL/2", "DiCo-XL", "DiC-XL")
WORK = ("inference", "training")
PROFILE_TIMEOUT_S = 600.0
TYPICAL_S = 0.3  # of one model at one size


def work(
    model: "nn.Module", task: "Task", *, batch: int, precision: str, work: str = "inference"
) -> tuple[Part, ...]:
    """Trace a pass over meta tensors and give its parts, those of the most eager bytes first.

    Calls of one operator in one kind of module are one part if they are alike in size.

    Args:
        model: on the meta device; it is put in eval mode.
        task: gives the shapes of the inputs.
        batch: images N.
        precision: of weights and x in inference; in training bf16 and fp16 are torch.autocast.
        work: inference, or training: forward and backward, x needing no gradient.
    """
    from bench import tracing

    return tracing.trace(model, task, batch, precision, work)


def blank(name: str, res: Size, batch: int, precision: str, work: str) -> Work:
    """The record of a pass before it is traced; tf32 moves the bytes of fp32."""
    from bench import environment
    from models.registry import family_of, task_at

    return Work(
        model=name,
        family=family_of(name),
        res=res,
        latent_size=task_at(name, *height_width(res)).latent_size,
        batch=batch,
        precision=precision if precision in ("bf16", "fp16") else "fp32",
        work=work,
        parts=(),
        environment=environment.gather("meta", name),
    )


def traced(asked: Work, model: "nn.Module") -> Work:
    """Fill in the parts of a record; the model is on the meta device."""
    from models.registry import task_at

    task = task_at(asked.model, *height_width(asked.res))
    parts = work(model, task, batch=asked.batch, precision=asked.precision, work=asked.work)
    return replace(asked, parts=parts)
