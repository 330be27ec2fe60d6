"""Size of a program of the depthwise Triton kernel, for its caller and for the kernel."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """What one program computes."""

    columns: int = 4
    rows: int = 16  # and K // 2 more above and below, which it also reads and multiplies
    block: int = 64  # channels, one per thread

    def programs(self, height: int, width: int) -> int:
        """Programs with the same channels of an image."""
        return -(-height // self.rows) * -(-width // self.columns)
