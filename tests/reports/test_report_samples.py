"""The report's section on samples."""

import math
from dataclasses import replace

from reports.sections.samples import section
from tests.records.examples import PICTURE, QUALITY, SAMPLING, SKIPPED, THROUGHPUT


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|") and word in line]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_section_is_empty_without_samples() -> None:
    assert section([THROUGHPUT, SKIPPED]) == ("", [])


def test_speeds_are_those_of_whole_chains() -> None:
    text, drawings = section([THROUGHPUT, SAMPLING])
    assert drawings == []
    (row,) = map(cells, lines(text, "FCDM-S"))
    assert row[:9] == ["FCDM-S", "256", "4", "fp32", "flow", "heun", "50", "1.5", "1.333"]
    assert "a device, torch 2.13.0, commit abc, 2026-11-21." in text
    assert "their images are noise" in text
    assert "Quality" not in text


def test_the_newest_record_of_a_case_counts_in_any_order() -> None:
    later = replace(SAMPLING.environment, date="2026-11-22T00:00:00Z")
    newer = replace(SAMPLING, environment=later, times_s=(1.0,))
    for records in ([SAMPLING, newer], [newer, SAMPLING]):
        text = section(records)[0]
        assert len(lines(text, "FCDM-S")) == 1
        assert "2026-11-22" in text


def test_distances_name_their_features() -> None:
    distance = "Fréchet distance, features of a small classifier trained here on digits"
    other = replace(QUALITY, case=replace(QUALITY.case, distance=distance))
    text, _ = section([QUALITY, other])
    assert len(lines(text, "samples.npz")) == 2
    (row,) = lines(text, "FID (fid-helper weights)")
    assert "12.5" in row
    assert "100.000" in row  # KID x 1000


def test_subsets_of_one_image_show_no_kid() -> None:
    older = replace(QUALITY, kid=(math.nan,), case=replace(QUALITY.case, kid_subset=1))
    (row,) = lines(section([older])[0], "samples.npz")
    assert "nan" not in row


def test_samples_are_shown_with_how_they_were_made() -> None:
    made = "DiT-S/2, weights random; no guidance; seed 0"
    known = replace(QUALITY, case=replace(QUALITY.case, samples="b.npz sha256:89ab", made=made))
    text, _ = section([QUALITY, known])
    assert f"| {made} |" in lines(text, "b.npz")[0]


def test_pictures_show_shares_and_the_ratio_to_dit() -> None:
    dit = replace(
        PICTURE,
        case=replace(PICTURE.case, model="DiT-S/2", family="DiT"),
        times_s=(5.0, 6.0),
        passes_s=((1.5, 1.5), (1.5, 1.5)),
        decoder_s=(1.5, 2.0),
    )
    text, _ = section([dit, PICTURE])
    shares, ratio = map(cells, lines(text, "FCDM-S"))
    assert shares[8:10] == ["0.8889", "-"]  # images/s, no interval of two chains
    assert shares[12:16] == ["5.56", "38.9", "50.0", "5.56"]
    assert ratio[:2] == ["FCDM-S", "DiT-S/2"]
    assert ratio[5] == "1.714"  # 3 s / 1.75 s of the network alone
    assert ratio[7] == "1.353"  # 5.75 s / 4.25 s of whole pictures, with 2 s of a decoder for both
    assert "not in interleaved rounds" in text
    assert "49,490,199 parameters" in text
    assert "Speed of whole sampling" not in text


def test_pictures_of_other_settings_have_no_ratio() -> None:
    case = replace(PICTURE.case, model="DiT-S/2", family="DiT")
    for other in (replace(case, steps=10), replace(case, precision="bf16"), replace(case, model="DiT-B/2")):
        text, _ = section([replace(PICTURE, case=other), PICTURE])
        assert len(lines(text, "FCDM-S")) == 1
