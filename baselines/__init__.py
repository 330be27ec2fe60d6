"""Published numbers, and reference data for the tests of the backbones; every file has a source."""
