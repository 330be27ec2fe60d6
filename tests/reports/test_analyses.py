"""The report's section on trained networks: the newest of each, side by side with what was shown the same."""

from dataclasses import replace

import pytest

from bench.records.record import ChannelScores, Probe, Record, Scores, Spectrum
from reports.sections import trained_networks
from tests.records.test_record import RUN, TIMED

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
        run=replace(RUN, question="spectrum", model=model),
        probe=probe,
        radii=RADII,
        counts=COUNTS,
        predicted=powers,
        added=tuple((1.0,) * len(RADII) for _ in probe.levels),
        error=tuple(tuple(0.5 * power for power in rings) for rings in powers),
    )


def scored(model: str, dead: int = 3) -> ChannelScores:
    layers = tuple(
        Scores(layer=f"middle.{at}.contract", scores=(0.0,) * dead + (1.0,) * (10 - dead)) for at in range(2)
    )
    return ChannelScores(
        run=replace(RUN, question="channels", model=model), probe=PROBE, pattern="c", layers=layers
    )


ALL: list[Record] = [
    TIMED,
    spectrum("FCDM-S"),
    spectrum("DiT-S/2", 0.6),
    scored("FCDM-S"),
    scored("FCDM-S@cca", 5),
    scored("FCDM-S@nogrn", 8),
]


def test_the_section_is_the_same_in_any_order_of_the_records() -> None:
    text, drawings = trained_networks.section(ALL)
    again, drawn = trained_networks.section(list(reversed(ALL)))
    assert again == text
    assert [drawing.picture.name for drawing in drawings] == ["spectrum_1", "channels_1"]
    assert [(d.png, d.svg) for d in drawn] == [(d.png, d.svg) for d in drawings]


def test_without_records_of_these_kinds_there_is_no_section() -> None:
    assert trained_networks.section([TIMED]) == ("", [])


@pytest.mark.usefixtures("blank_figures")
def test_tables_hold_the_powers_and_uses_that_the_records_give() -> None:
    text, _ = trained_networks.section(ALL)
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| FCDM-S")}
    assert "| 30.0 " in lines["FCDM-S"]
    assert "| 0.300 " in lines["FCDM-S"]
    assert "| 70.0 " in lines["FCDM-S"]
    assert "| 80.0 " in lines["FCDM-S@nogrn"]
    assert "0.333 / 0.333 / 0.333 | 0.667 / 0.667 / 0.667 | 1.000 / 1.000 / 1.000" in text
    assert "0.300 / 0.300 / 0.300" in text  # the error of DiT-S/2 at the last level
    assert "256 validation images of digits (sha256 4e2f)" in text
    assert "a device, fp32, batch 4, torch 2.13.0, commit abc, 2026-11-21" in text


@pytest.mark.usefixtures("blank_figures")
def test_the_newest_of_a_case_counts() -> None:
    later = replace(RUN.environment, date="2026-11-22T00:00:00Z")
    new = spectrum("FCDM-S", 0.9)
    new = replace(new, run=replace(new.run, environment=later))
    text, _ = trained_networks.section([new, spectrum("FCDM-S")])
    assert "0.900 / 0.900 / 0.900" in text
    assert "1.000 / 1.000 / 1.000" not in text


@pytest.mark.usefixtures("blank_figures")
def test_networks_that_were_shown_other_data_stand_in_another_table() -> None:
    other = replace(PROBE, data="cifar10")
    text, drawings = trained_networks.section([spectrum("FCDM-S"), spectrum("FCDM-S", probe=other)])
    assert [drawing.picture.name for drawing in drawings] == ["spectrum_1", "spectrum_2"]
    assert text.count("### Spectral energy") == 2


def test_both_objectives_are_told_apart_in_headings_titles_and_the_words_on_the_axis() -> None:
    flow = replace(PROBE, objective="flow")
    channels = [scored("FCDM-S"), replace(scored("FCDM-S"), probe=flow)]
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


@pytest.mark.usefixtures("blank_figures")
def test_networks_that_were_shown_other_levels_have_a_heading_of_their_own() -> None:
    probe = replace(PROBE, images=128)
    text, _ = trained_networks.section([spectrum("FCDM-S"), spectrum("FCDM-S", probe=probe)])
    headings = {line for line in text.splitlines() if line.startswith("### ")}
    assert len(headings) == 2


@pytest.mark.usefixtures("blank_figures")
def test_two_checkpoints_of_one_network_are_told_apart() -> None:
    other = replace(PROBE, trained="step 800, seed 1, weights as trained")
    text, _ = trained_networks.section([spectrum("FCDM-S"), spectrum("FCDM-S", probe=other)])
    assert "FCDM-S, step 800, seed 1, weights as trained" in text


@pytest.mark.usefixtures("blank_figures")
def test_images_too_small_for_a_band_have_a_dash_there() -> None:
    one = replace(
        spectrum("FCDM-S"), radii=(0.0,), counts=(1,), predicted=((1.0,),) * 3, added=((1.0,),) * 3,
        error=((1.0,),) * 3,
    )  # fmt: skip
    assert "1.000 / — / —" in trained_networks.section([one])[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"predicted": ((1.0,) * 5,)}, "needs a power for every level and ring"),
        ({"error": ((1.0,),) * 3}, "needs a power for every level and ring"),
    ],
)
def test_a_spectrum_without_all_its_powers_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(spectrum("FCDM-S"), **change)


def test_scores_below_zero_and_a_network_without_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="needs scores of 0 and above"):
        Scores(layer="middle", scores=(0.1, -0.1))
    with pytest.raises(ValueError, match="at least one layer"):
        replace(scored("FCDM-S"), layers=())
