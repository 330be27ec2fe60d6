"""Convolutions, products and norms of the backbones: implementations, checked and compared."""
