"""Renamed: python -m bench.roofline --measure-ceilings."""

from bench.cli.renamed import end

end("ceilings", "bench.roofline --measure-ceilings")
