"""Renamed: python -m bench.compare."""

from bench.cli.renamed import end

end("agree", "bench.compare")
