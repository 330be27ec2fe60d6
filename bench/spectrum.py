"""Renamed: python -m bench.analyse spectrum."""

from bench.cli.renamed import end

end("spectrum", "bench.analyse spectrum")
