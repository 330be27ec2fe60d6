"""Kinds of failures: memory that ran out, and the line that a row gives of an error."""

# what a failed allocation says: of C++, of torch's CPU, of CUDA and Triton, of cuBLAS and its like, of cuDNN
NO_MEMORY = ("bad_alloc", "allocate memory", ": out of memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")


def first_line(error: BaseException) -> str:
    """What a row says of an error."""
    return str(error).strip().partition("\n")[0]


def memory_reason(error: Exception) -> str:
    """What a row says of memory that ran out; any other error is raised again."""
    failed = out_of_memory(error)
    if failed is None:
        raise error
    return first_line(failed)


def out_of_memory(error: BaseException) -> BaseException | None:
    """The failed allocation that an error was raised from, or is itself; None where it is another failure."""
    behind = out_of_memory(error.__cause__) if error.__cause__ else None
    return behind or (error if _is_allocation(error) else None)


def _is_allocation(error: BaseException) -> bool:
    """Tell a failed allocation, by its words where it has no exception of its own: on a CPU, in a library."""
    if type(error).__name__ in ("MemoryError", "OutOfMemoryError"):  # the second is torch's
        return True
    told = str(error)
    # cuDNN tries one engine after another and drops what each fails of: the allocator has counted it
    if "unable to find an engine" in told:
        import torch

        return bool(torch.cuda.memory_stats().get("num_ooms", 0))
    return any(words in told for words in NO_MEMORY)
