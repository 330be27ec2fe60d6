"""Statistics of numbers: intervals, noise, ratios, power laws."""
