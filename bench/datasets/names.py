"""Names of data sets. Imports no torch: commands check them first."""

from pathlib import Path

from bench.store.files import why_not_readable

DECODED = ("fashion-mnist", "cifar10")  # decoded by python -m bench.data
IMAGES = ("digits", *DECODED)  # data sets of images; all others are latents


def checked(name_or_path: str) -> str:
    """The name of a data set of images, or the path of a file or folder of latents.

    Raises:
        ValueError: neither; a FIFO or a device.
    """
    reason = None if name_or_path in IMAGES else why_not_readable(Path(name_or_path), or_folder=True)
    if reason == "no such file or folder":
        reason = f"no such data: neither {', '.join(IMAGES)} nor a file or folder of latents"
    if reason is not None:
        raise ValueError(f"{name_or_path}: {reason}")
    return name_or_path
