"""The report's section on trained networks: the newest record of each, one table per set of images."""

from dataclasses import replace

import pytest

from bench.records.base import Record
from bench.records.probes import ChannelCase, ChannelScores, Probe, Scores, Spectrum, SpectrumCase
from reports.sections import trained_networks
from tests.records.examples import ENVIRONMENT, MODEL, THROUGHPUT

PROBE = Probe(
    trained="step 800, seed 0, weights as trained",
    objective="iddpm",
    data="digits",
    data_sha256="4e2f",
    images=256,
    levels=(0, 500, 999),
)
RADII, COUNTS = (0.0, 0.125, 0.25, 0.4, 0.6), (1, 8, 12, 20, 23)


def spectrum(model: str, scale: float = 1.0, probe: Probe = PROBE) -> Spectrum:
    powers = tuple(tuple(scale * (at + 1) / 3 for _ in RADII) for at in range(len(probe.levels)))
    return Spectrum(
        case=SpectrumCase(**{**MODEL, "model": model}, probe=probe),
        environment=ENVIRONMENT,
        radii=RADII,
        counts=COUNTS,
        predicted=powers,
        added=tuple((1.0,) * len(RADII) for _ in probe.levels),
        error=tuple(tuple(0.5 * power for power in rings) for rings in powers),
    )


def scored(model: str, dead: int = 3, probe: Probe = PROBE) -> ChannelScores:
    layers = tuple(
        Scores(layer=f"middle.{at}.contract", scores=(0.0,) * dead + (1.0,) * (10 - dead)) for at in range(2)
    )
    return ChannelScores(
        case=ChannelCase(**{**MODEL, "model": model}, probe=probe, pattern="c"),
        environment=ENVIRONMENT,
        layers=layers,
    )


ALL: list[Record] = [
    THROUGHPUT,
    spectrum("FCDM-S"),
    spectrum("DiT-S/2", 0.6),
    scored("FCDM-S"),
    scored("FCDM-S@cca", 5),
    scored("FCDM-S@nogrn", 8),
]


def test_the_section_is_the_same_in_any_order_of_records() -> None:
    text, drawings = trained_networks.section(ALL)
    again, drawn = trained_networks.section(list(reversed(ALL)))
    assert again == text
    assert [drawing.picture.name for drawing in drawings] == ["spectrum_1", "channels_1"]
    assert drawn == drawings


def test_section_is_empty_without_records_of_its_kinds() -> None:
    assert trained_networks.section([THROUGHPUT]) == ("", [])


def rows(text: str, model: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith(f"| {model} ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_tables_show_the_powers_and_uses_of_the_records() -> None:
    text, _ = trained_networks.section(ALL)
    fcdm = rows(text, "FCDM-S")
    trained = PROBE.trained
    assert ["FCDM-S", trained, "0", *["0.3333"] * 3, *["0.1667"] * 3] in fcdm
    assert ["FCDM-S", trained, "999", *["1.0000"] * 3, *["0.5000"] * 3] in fcdm
    assert ["FCDM-S", trained, "all 2", "20", "0.7000", "30.0", "0.300", "70.0"] in fcdm
    assert rows(text, "FCDM-S@nogrn")[0][5] == "80.0"
    assert "256 validation images of digits (sha256 4e2f)" in text
    assert "a device, fp32, batch 4, torch 2.13.0, commit abc, 2026-11-21" in text


def test_the_newest_of_a_case_counts() -> None:
    later = replace(ENVIRONMENT, date="2026-11-22T00:00:00Z")
    new = replace(spectrum("FCDM-S", 0.9), environment=later)
    text, _ = trained_networks.section([new, spectrum("FCDM-S")])
    assert rows(text, "FCDM-S")[-1][3] == "0.9000"


def test_networks_with_other_data_have_another_table() -> None:
    other = replace(PROBE, data="cifar10")
    text, drawings = trained_networks.section([spectrum("FCDM-S"), spectrum("FCDM-S", probe=other)])
    assert [drawing.picture.name for drawing in drawings] == ["spectrum_1", "spectrum_2"]
    assert text.count("### Spectral energy") == 2


def test_objectives_are_named_in_headings_titles_and_axes() -> None:
    flow = replace(PROBE, objective="flow")
    channels = [scored("FCDM-S"), scored("FCDM-S", probe=flow)]
    text, drawings = trained_networks.section([spectrum("FCDM-S"), spectrum("FCDM-S", probe=flow), *channels])
    headings = [line for line in text.splitlines() if line.startswith("### ")]
    assert headings == [
        "### Spectral energy of the predicted noise: digits, flow matching",
        "### Spectral energy of the predicted noise: digits, diffusion",
        "### Use of hidden channels: digits, flow matching",
        "### Use of hidden channels: digits, diffusion",
    ]
    titles = [drawing.picture.title for drawing in drawings]
    assert len(set(titles)) == 4
    assert all(
        title.endswith(heading.partition(": ")[2]) for title, heading in zip(titles, headings, strict=True)
    )
    of_flow, of_diffusion = (drawing.svg.decode() for drawing in drawings[:2])
    assert "level of noise: 1000 (1 - t)" in of_flow
    assert "timestep" not in of_flow
    assert "level of noise: timestep" in of_diffusion


def test_networks_with_other_images_have_a_heading_of_their_own() -> None:
    probe = replace(PROBE, images=128)
    text, _ = trained_networks.section([spectrum("FCDM-S"), spectrum("FCDM-S", probe=probe)])
    headings = {line for line in text.splitlines() if line.startswith("### ")}
    assert len(headings) == 2


def test_checkpoints_of_one_network_have_distinct_labels() -> None:
    other = replace(PROBE, trained="step 800, seed 1, weights as trained")
    group = [spectrum("FCDM-S"), spectrum("FCDM-S", probe=other)]
    text, _ = trained_networks.section(group)
    assert {row[1] for row in rows(text, "FCDM-S")} == {PROBE.trained, other.trained}
    assert trained_networks._labels(group)[1] == "FCDM-S, step 800, seed 1, weights as trained"


def test_band_missing_from_small_images_is_a_dash() -> None:
    one = replace(
        spectrum("FCDM-S"), radii=(0.0,), counts=(1,), predicted=((1.0,),) * 3, added=((1.0,),) * 3,
        error=((1.0,),) * 3,
    )  # fmt: skip
    (row, *_) = rows(trained_networks.section([one])[0], "FCDM-S")
    assert row[3:6] == ["1.0000", "-", "-"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": ((1.0,) * 5,)}, "needs a power for every level and ring"),
        ({"error": ((1.0,),) * 3}, "needs a power for every level and ring"),
    ],
)
def test_a_spectrum_without_all_its_powers_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(spectrum("FCDM-S"), **change)


def test_negative_scores_and_missing_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="needs scores of 0 and above"):
        Scores(layer="middle", scores=(0.1, -0.1))
    with pytest.raises(ValueError, match="at least one layer"):
        replace(scored("FCDM-S"), layers=())
