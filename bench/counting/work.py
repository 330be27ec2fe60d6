"""Operator costs of one pass of a model: kernels, MACs and bytes, from the sizes of meta tensors."""

from torch import nn

from bench.counting import kernels
from bench.machine import environment
from bench.records.base import Size, height_width
from bench.records.operators import OperatorCase, OperatorCosts
from models.contract import build
from models.registry import family_of, task_at


def operator_case(model: str, res: Size, batch: int, precision: str, work: str) -> OperatorCase:
    """The case of one pass over tensors in fp32, bf16 or fp16; of training without the gradient of x."""
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


def count(case: OperatorCase, model: nn.Module | None = None) -> OperatorCosts:
    """Trace a pass of a model on the meta device, by default built here, which is switched to eval mode."""
    task = task_at(case.model, *height_width(case.res))
    if model is None:
        model = build(case.model, task)
    return OperatorCosts(
        case=case,
        environment=environment.gather("meta", case.model),
        parts=kernels.trace(model, task, case.batch, case.precision, case.work),
    )
