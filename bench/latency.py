"""Renamed: python -m bench.throughput --batch 1."""

from bench.cli.renamed import end

end("latency", "bench.throughput --batch 1")
