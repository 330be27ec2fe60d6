"""What limits a pass: kinds of operators, peaks of a device, and the least time that the two allow.

A floor is max(FLOPs / peak, bytes / bandwidth) of every operator, summed over a pass. Imports no torch.
"""

KINDS = (
    "depthwise",
    "pointwise",
    "convolution",
    "linear",
    "attention",
    "scan",
    "norm",
    "elementwise",
    "movement",
)
PRODUCTS = KINDS[:6]  # these have MACs; under ideal fusion the others ride on them
OTHER = "other"  # of a profile: what belongs to no operator of a kind
