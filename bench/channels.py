"""Renamed: python -m bench.analyse channels."""

from bench.cli.renamed import end

end("channels", "bench.analyse channels")
