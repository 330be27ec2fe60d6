"""The Python API: count, time, compare, and read records. Run it: python docs/api_example.py

Each function is a command with the command's options: `python -m bench.throughput --help` lists them.
"""

import tempfile
from pathlib import Path

from bench import api

folder = Path(tempfile.mkdtemp())

# MACs of one image; a record has the case, the environment and the counts
(count,) = api.flops("FCDM-S", res=256)
print(f"FCDM-S: {count.macs / 1e9:.3f} GMACs, {count.params / 1e6:.1f} M parameters")

# images/s; records are appended to the file, and found there by the next run
quick = {"res": 64, "batch": 1, "budget": 1, "processes": 1, "device": "cpu"}
api.throughput("DiT-Ti/2", "FCDM-Ti", **quick, out=folder / "runs.jsonl")

# which is faster, in interleaved rounds: the ratio of speeds and its interval
(compared,) = api.versus("DiT-Ti/2", "FCDM-Ti", **quick)
print(f"FCDM-Ti / DiT-Ti/2: {compared.ratio(1):.2f} {compared.interval(1)}")

# a frame with a row for each case; a failed case has its reason
frame = api.load(folder / "*.jsonl").to_pandas()
print(frame[["model", "res", "images_per_s", "status", "reason"]])
