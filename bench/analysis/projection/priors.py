"""Priors of the shares of peaks that kernels reach."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prior:
    """Prior of one share of a peak, or of the launch time."""

    name: str
    median: float  # a share of the peak; of "fp32 products" a difference of logits; of "launch" seconds
    spread: float  # standard deviation of its logit, of the difference, or of log seconds
    source: str

    @property
    def fitted_median(self) -> float:
        """The median on the scale of the fit: the logit of a share, the logarithm of seconds."""
        if self.name == "launch":
            return math.log(self.median)
        return self.median if self.name == "fp32 products" else math.log(self.median / (1 - self.median))

    def natural(self, fitted: float) -> float:
        """Convert from the scale of the fit to a share or to seconds."""
        if self.name == "launch":
            return math.exp(fitted)
        return fitted if self.name == "fp32 products" else 1 / (1 + math.exp(-fitted))


_JUDGED = "our judgement"
_TORCH_DEPTHWISE = _JUDGED + ": torch's kernels are estimated at 1 to 3 TFLOP/s on an H200"
_LESS = "seen for {} on one H200 (baselines/gpus.csv), less here"
_FP32 = _JUDGED + ", knowing DiT's published rows: peaks without tensor cores are kept busy"
PRIORS: Mapping[str, tuple[Prior, ...]] = {
    "cuda": (
        Prior("depthwise", 0.05, 0.7, _TORCH_DEPTHWISE),
        Prior("pointwise", 0.50, 0.4, _JUDGED + ": a product with layout changes around it"),
        Prior("convolution", 0.50, 0.4, _JUDGED + ": cuDNN on the given layout"),
        Prior("linear", 0.62, 0.3, "0.8 " + _LESS.format("large bf16 matrices")),
        Prior("attention", 0.35, 0.5, _JUDGED + ": short sequences, 256 to 1024 tokens"),
        Prior("scan", 0.10, 0.8, _JUDGED),
        Prior("fp32 products", 1.5, 0.5, _FP32),
        Prior("bytes of products", 0.75, 0.4, _JUDGED),
        Prior("bytes of the rest", 0.80, 0.4, "0.9 " + _LESS.format("a copy")),
        Prior("launch", 7e-6, 0.4, _JUDGED + ": seconds of the host for one eager kernel"),
    ),
    "cpu": (
        Prior("depthwise", 0.20, 0.7, _JUDGED),
        Prior("pointwise", 0.70, 0.4, _JUDGED),
        Prior("convolution", 0.60, 0.4, _JUDGED),
        Prior("linear", 0.80, 0.3, _JUDGED),
        Prior("attention", 0.40, 0.5, _JUDGED),
        Prior("scan", 0.05, 0.8, _JUDGED),
        Prior("fp32 products", 0.3, 0.5, _JUDGED),
        Prior("bytes of products", 0.60, 0.4, _JUDGED),
        Prior("bytes of the rest", 0.60, 0.4, _JUDGED),
        Prior("launch", 5e-6, 0.4, _JUDGED + ": seconds of one eager operator"),
    ),
}
