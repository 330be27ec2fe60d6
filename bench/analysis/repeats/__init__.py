"""Two runs of equal cases compared: ratios, verdicts, likely causes of differences."""
