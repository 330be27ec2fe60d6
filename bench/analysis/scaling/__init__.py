"""Time, MACs, bytes and memory over the resolution: exponents, slow-downs and cross-overs."""
