"""Kinds of failures: exceptions whose type is the status of a record, and failed allocations."""

from typing import ClassVar

from bench.records.base import Case, Environment, Skipped

# messages of failed allocations: C++, torch on a CPU, CUDA and Triton, cuBLAS and similar, cuDNN
NO_MEMORY = ("bad_alloc", "allocate memory", ": out of memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")

RAISED = (Exception, SystemExit)  # what a user's code may raise, which is a row and ends no other


class MeasurementError(RuntimeError):
    """A known failure of a case, recorded as Skipped."""

    status: ClassVar[str]


class NotFiniteError(MeasurementError):
    """An output, a loss or a sample has inf or NaN."""

    status = "not finite"


class NoKernelError(MeasurementError):
    """The chosen attention kernel does not support a model's tensors on this device."""

    status = "no kernel"


class DifferentOutputError(MeasurementError):
    """The output of a compiled model differs from that of the eager one."""

    status = "refused"


class NoWorkError(MeasurementError):
    """No work explains the times: a cached or deferred output, or a time below the floor."""

    status = "refused"


class RecompiledError(MeasurementError):
    """torch.compile compiled during timing."""

    status = "recompiled"


class OverBudgetError(MeasurementError):
    """The predicted time of a case's minimum passes is much longer than its budget."""

    status = "over budget"


def first_line(error: BaseException) -> str:
    """The line of an error that a record stores as its reason."""
    return str(error).strip().partition("\n")[0]


def failed_row(case: Case, environment: Environment, error: BaseException) -> Skipped:
    """The record of a case that raised any error."""
    status, reason = status_and_reason(error)
    return Skipped(case=case, environment=environment, status=status, reason=reason)


def known_failure(case: Case, environment: Environment, error: Exception) -> Skipped:
    """The record of a failed allocation or a MeasurementError; raises any other error again."""
    if out_of_memory(error) is None and not isinstance(error, MeasurementError):
        raise error
    return failed_row(case, environment, error)


def status_and_reason(error: BaseException) -> tuple[str, str]:
    """The status and the reason of a record for any error."""
    if (failed := out_of_memory(error)) is not None:
        return "out of memory", first_line(failed)
    if isinstance(error, MeasurementError):
        return error.status, first_line(error)
    return "error", describe(error)


def describe(error: BaseException) -> str:
    """ValueError: the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)[:160]}"


def memory_reason(error: Exception) -> str:
    """The reason of a failed allocation; raises any other error again."""
    failed = out_of_memory(error)
    if failed is None:
        raise error
    return first_line(failed)


def out_of_memory(error: BaseException) -> BaseException | None:
    """The failed allocation that an error is or was caused by; None for another failure."""
    behind = out_of_memory(error.__cause__) if error.__cause__ else None
    return behind or (error if _is_allocation(error) else None)


def _is_allocation(error: BaseException) -> bool:
    """Whether an error is a failed allocation.

    Python and torch's CUDA allocator have exception types for it. torch on a CPU, Triton and the libraries of
    CUDA raise a plain RuntimeError without a code: only for these the message is compared.
    """
    if type(error).__name__ in ("MemoryError", "OutOfMemoryError"):  # the second is torch's
        return True
    if isinstance(error, MeasurementError):
        return False
    text = str(error)
    # cuDNN tries its engines in turn and drops their reasons; the allocator counts the failures
    if "unable to find an engine" in text:
        import torch

        return bool(torch.cuda.memory_stats().get("num_ooms", 0))
    return any(words in text for words in NO_MEMORY)
