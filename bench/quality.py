"""Renamed: python -m bench.sample --compare FILE."""

from bench.cli.renamed import end

end("quality", "bench.sample --compare FILE")
