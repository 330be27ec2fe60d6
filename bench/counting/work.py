"""Operator costs of one pass of a model: kernels, MACs and bytes, from the sizes of meta tensors."""

from torch import nn

from bench.counting import kernels
from bench.machine import environment
from bench.records.base import Size, height_width
from bench.records.operators import OperatorCase, OperatorCosts
from models.registry import family_of, task_at


def operator_case(model: str, res: Size, batch: int, precision: str, work: str) -> OperatorCase:
    """The case of one pass.

    Args:
        model: its printed name.
        res: pixels of the image.
        batch: images N.
        precision: of the tensors: fp32, bf16 or fp16.
        work: inference; or training: forward and backward, without the gradient of x.
    """
    return OperatorCase(
        device="meta",
        model=model,
        family=family_of(model),
        res=res,
        latent_size=task_at(model, *height_width(res)).latent_size,
        batch=batch,
        precision=precision,
        work=work,
    )


def count(case: OperatorCase, model: nn.Module) -> OperatorCosts:
    """Trace a pass over meta tensors.

    Args:
        case: of the pass; bf16 and fp16 are torch.autocast in training, and the precision of the weights in
            inference.
        model: on the meta device; switched to eval mode.
    """
    task = task_at(case.model, *height_width(case.res))
    return OperatorCosts(
        case=case,
        environment=environment.gather("meta", case.model),
        parts=kernels.trace(model, task, case.batch, case.precision, case.work),
    )
