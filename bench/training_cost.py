"""Renamed: python -m bench.flops --training."""

from bench.cli.renamed import end

end("training_cost", "bench.flops --training")
