"""A lock on an open file, which ends with the process that holds it."""


def lock(descriptor: int) -> None:
    """Lock a file for this process. BlockingIOError: another process holds the lock."""
    import fcntl  # not on every system; only writers need it

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
