"""Renamed: python -m bench.compare FILE --note TEXT."""

from bench.cli.renamed import end

end("note", "bench.compare FILE --note TEXT")
