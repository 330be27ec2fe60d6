"""Columns shared by several kinds of records: model, size, settings, environment."""

from typing import Any

from bench.records.base import Size, height_width, size_text
from bench.tables.table import Column, fields


def size(value: Size) -> int | str:
    """The side of a square as a number, a rectangle as height x width; for CSV and JSON."""
    return value if isinstance(value, int) else size_text(value)


def space(res: Size, latent_size: Size) -> str:
    """Where the noise is added: pixels, or latents by the pixels in one of their sides: f8."""
    factor = height_width(res)[0] // height_width(latent_size)[0]
    return "pixels" if factor == 1 else f"f{factor}"


def on_off(value: bool) -> str:
    return "on" if value else "off"


MODEL, PRECISION = fields("case.model", "case.precision")
(FAMILY,) = fields("case.family", raw=True)
RES: Column[Any] = Column("res", lambda r: size(r.case.res), str, of_case=True)
LATENT: Column[Any] = Column("latent_size", lambda r: size(r.case.latent_size), of_case=True, raw=True)
# f8 is Stable Diffusion's, of most backbones here
SPACE: Column[Any] = Column(
    "space", lambda r: space(r.case.res, r.case.latent_size), of_case=True, optional=True, usual="f8"
)
BATCH: Column[Any] = Column("batch", "case.batch", str)


def _switch(field: str) -> Column[Any]:
    return Column(
        field.replace("_", "-"),
        lambda r: getattr(r.case, field),
        on_off,
        key=field,
        of_case=True,
        optional=True,
        usual=False,
    )


SETTINGS: tuple[Column[Any], ...] = (
    Column("impl", "case.impl", optional=True, usual="reference"),
    Column("engine", "case.engine", optional=True, usual="eager"),
    *map(_switch, ("cuda_graphs", "channels_last")),
    Column("attention", "case.attention", optional=True, usual="auto"),
    _switch("checkpointing"),
)
SIZED: tuple[Column[Any], ...] = (MODEL, FAMILY, RES, LATENT, SPACE, BATCH)
RUN: tuple[Column[Any], ...] = (*SIZED, PRECISION, *SETTINGS)


ENVIRONMENT = fields(
    "environment.device", "environment.torch", "environment.threads", "environment.date", raw=True
)
# columns of the environment for the report, whose tables mix environments
PROVENANCE: tuple[Column[Any], ...] = (
    *fields("environment.device", "environment.torch", "environment.commit"),
    Column("date", lambda r: r.environment.date[:10], of_case=True),
)
NOISE: Column[Any] = Column("noise", "noise", optional=True)
