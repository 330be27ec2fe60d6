"""Thin copies of networks that were published in large sizes only: for tests that compute."""

from functools import partial

from models import dim, dimsum, dis

small_dis = partial(dis.DiS, dis.Config(width=64, depth=4))
small_dim = partial(dim.DiM, dim.Config(width=64, depth=11))
small_dimsum = partial(dimsum.DiMSUM, dimsum.Config(width=64, depth=4, heads=2))
