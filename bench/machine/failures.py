"""Kinds of failures: exceptions whose type gives the status of a row, and memory that ran out."""

from typing import ClassVar

# texts of failed allocations: C++, torch on a CPU, CUDA and Triton, cuBLAS and the like, cuDNN
NO_MEMORY = ("bad_alloc", "allocate memory", ": out of memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")


class MeasurementError(RuntimeError):
    """A case that gives no number, for a reason that is a result of its own."""

    status: ClassVar[str]


class NotFiniteError(MeasurementError):
    """An output, a loss or a sample holds inf or NaN."""

    status = "not finite"


class NoKernelError(MeasurementError):
    """The chosen attention kernel does not take a model's tensors on this device."""

    status = "no kernel"


class RecompiledError(MeasurementError):
    """torch.compile compiled again while passes were timed."""

    status = "recompiled"


class OverBudgetError(MeasurementError):
    """The passes that a case needs at least are predicted to take much longer than its budget."""

    status = "over budget"


def first_line(error: BaseException) -> str:
    """The line that a row gives of an error."""
    return str(error).strip().partition("\n")[0]


def memory_reason(error: Exception) -> str:
    """The line that a row gives of memory that ran out; any other error is raised again."""
    failed = out_of_memory(error)
    if failed is None:
        raise error
    return first_line(failed)


def out_of_memory(error: BaseException) -> BaseException | None:
    """The failed allocation that an error was raised from, or is itself; None for another failure."""
    behind = out_of_memory(error.__cause__) if error.__cause__ else None
    return behind or (error if _is_allocation(error) else None)


def _is_allocation(error: BaseException) -> bool:
    """Whether an error is a failed allocation.

    Python and torch's CUDA allocator have exception types for it. torch on a CPU raises a plain RuntimeError,
    and so do Triton and the libraries of CUDA, without a code: for those alone the text is compared.
    """
    if type(error).__name__ in ("MemoryError", "OutOfMemoryError"):  # the second is torch's
        return True
    if isinstance(error, MeasurementError):
        return False
    text = str(error)
    # cuDNN tries one engine after another and drops the reason of each: the allocator has counted failures
    if "unable to find an engine" in text:
        import torch

        return bool(torch.cuda.memory_stats().get("num_ooms", 0))
    return any(words in text for words in NO_MEMORY)
