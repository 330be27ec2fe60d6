"""Renamed: python -m bench.roofline."""

from bench.cli.renamed import end

end("operators", "bench.roofline")
