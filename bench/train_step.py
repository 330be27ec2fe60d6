"""Renamed: python -m bench.throughput --work training."""

from bench.cli.renamed import end

end("train_step", "bench.throughput --work training")
