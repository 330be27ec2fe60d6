"""What others published, and the facts that the tests hold the backbones to; every file has a source."""
