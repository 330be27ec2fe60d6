"""Thin copies of networks that were published in large sizes only: for tests that compute."""

from functools import partial

from models import uvit

small_uvit = partial(uvit.UViT, uvit.Config(width=64, depth=4, heads=2, patch=2))
