"""Published FID of backbones by resolution, each with its table, training and guidance. Imports no torch."""

from dataclasses import dataclass
from functools import cache

from baselines import load

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


# resolution of each table, and which rows are with guidance: all, none, or those with a text in a column
_TABLES: dict[str, tuple[int, bool | tuple[str, str]]] = {
    "fcdm_table03": (256, False),
    "fcdm_table05": (512, False),
    "fcdm_table16": (256, False),
    "fcdm_table04": (256, True),
    "fcdm_table17": (256, True),
    # DiCo prints no steps for rows with guidance and for published systems, whose FID is with guidance
    "dico_table01": (256, ("train_steps", "")),
    "dico_table02": (512, ("train_steps", "")),
    "mpdit_table01": (256, ("cfg", "guided")),
    "lightningdit_table03": (256, ("cfg", "guided")),
}
_LENGTHS = ("train_steps", "train_epochs")


@cache
def every() -> tuple[Fid, ...]:
    """Every FID of the tables that compare backbones."""
    found = []
    for name, (res, guided) in _TABLES.items():
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
                    is_guided=guided if isinstance(guided, bool) else row[guided[0]].as_printed == guided[1],
                    table=f"{table.paper} Table {table.number}",
                    remarks=tuple(touching),
                )
            )
    return tuple(found)


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
