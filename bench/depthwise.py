"""Renamed: python -m bench.kernels."""

from bench.cli.renamed import end

end("depthwise", "bench.kernels")
