"""Published FID of backbones by resolution, each with its table, training and guidance. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from baselines import load
from baselines.published import Row

BEST, AT_400K, GUIDED = "best", "400K", "guided"
KINDS = {
    BEST: "the lowest without guidance, at any length of training",
    AT_400K: "after 400K steps without guidance",
    GUIDED: "the lowest with guidance",
}


@dataclass(frozen=True, kw_only=True)
class Fid:
    """A printed FID with its conditions."""

    model: str
    res: int
    value: float
    as_printed: str
    steps: str  # as printed; blank if not stated
    is_guided: bool
    table: str  # FCDM Table 5
    remarks: tuple[int, ...]  # ids of the remarks on the cell

    @property
    def conditions(self) -> str:
        """In words: FCDM Table 5, 400K steps."""
        steps = f", {self.steps}" if self.steps else ""
        marks = "".join(f" [r{remark}]" for remark in self.remarks)
        return f"{self.table}{steps}{', guided' if self.is_guided else ''}{marks}"


def _never(row: Row) -> bool:
    return False


def _always(row: Row) -> bool:
    return True


def _of_system(row: Row) -> bool:
    """DiCo prints no steps for rows with guidance and for published systems, whose FID is with guidance."""
    return not row["train_steps"].as_printed


def _marked(row: Row) -> bool:
    return row["cfg"].as_printed == "guided"


# resolution of each table, and which of its rows are with guidance
_TABLES: dict[str, tuple[int, Callable[[Row], bool]]] = {
    "fcdm_table03": (256, _never),
    "fcdm_table05": (512, _never),
    "fcdm_table16": (256, _never),
    "fcdm_table04": (256, _always),
    "fcdm_table17": (256, _always),
    "dico_table01": (256, _of_system),
    "dico_table02": (512, _of_system),
    "mpdit_table01": (256, _marked),
    "lightningdit_table03": (256, _marked),
}


@cache
def every() -> tuple[Fid, ...]:
    """Every FID of the tables that compare backbones."""
    found = []
    for name, (res, is_guided) in _TABLES.items():
        table = load.table(name)
        for row in table.rows:
            value = row["fid"].value
            if value is None:
                continue
            steps, epochs = (row[column].as_printed if column in row else "" for column in _LENGTHS)
            touching = (remark.id for remark in load.remarks() if remark.touches(name, "fid", row))
            found.append(
                Fid(
                    model=load.backbone_name(row),
                    res=res,
                    value=value,
                    as_printed=row["fid"].as_printed,
                    steps=f"{steps} steps" if steps else f"{epochs} epochs" if epochs else "",
                    is_guided=is_guided(row),
                    table=f"{table.paper} Table {table.number}",
                    remarks=tuple(touching),
                )
            )
    return tuple(found)


_LENGTHS = ("train_steps", "train_epochs")


def lowest(model: str, res: object, kind: str) -> Fid | None:
    """The lowest published FID of a kind of KINDS at a side in px; None if none is printed."""
    found = [
        fid
        for fid in every()
        if (fid.model, fid.res) == (model, res)
        and fid.is_guided == (kind == GUIDED)
        and (kind != AT_400K or fid.steps == "400K steps")
    ]
    return min(found, key=lambda fid: fid.value, default=None)
