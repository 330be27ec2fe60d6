"""The report's section on samples."""

import math
from dataclasses import replace

from reports.sections.samples import section
from tests.records.test_record import QUALITY, SAMPLED, SKIPPED, TIMED


def lines(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|") and word in line]


def test_there_is_no_section_without_samples() -> None:
    assert section([TIMED, SKIPPED]) == ("", [])


def test_speeds_are_those_of_whole_chains_with_all_they_depend_on() -> None:
    text, drawings = section([TIMED, SAMPLED])
    assert drawings == []
    (row,) = lines(text, "FCDM-S")
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:10] == ["FCDM-S", "random", "256", "flow", "heun", "50", "100", "1.5", "4", "fp32"]
    assert cells[10] == "1.333"  # 4 images in the median of 2 and 4 s
    assert cells[-4:] == ["a device", "2.13.0", "abc", "2026-11-21"]
    assert "no images worth a look" in text
    assert "Quality" not in text


def test_the_newest_record_of_a_case_counts_whatever_the_order() -> None:
    environment = replace(SAMPLED.run.environment, date="2026-11-22T00:00:00Z")
    newer = replace(SAMPLED, run=replace(SAMPLED.run, environment=environment), times_s=(1.0,))
    for records in ([SAMPLED, newer], [newer, SAMPLED]):
        (row,) = lines(section(records)[0], "FCDM-S")
        assert "2026-11-22" in row


def test_distances_name_their_features_and_keep_apart() -> None:
    other = replace(
        QUALITY, distance="Fréchet distance, features of a small classifier trained here on digits"
    )
    text, _ = section([QUALITY, other])
    assert len(lines(text, "samples.npz")) == 2
    assert len(lines(text, "FID (fid-helper weights)")) == 1
    assert "12.5" in lines(text, "fid-helper")[0]
    assert "100.000" in lines(text, "fid-helper")[0]  # KID x 1000
    assert "(3 of 50)" in lines(text, "fid-helper")[0]  # subsets, images of each


def test_subsets_of_one_image_show_no_kid() -> None:
    older = replace(QUALITY, kid=(math.nan,), kid_subset=1, kid_subsets=0)
    (row,) = lines(section([older])[0], "samples.npz")
    assert "nan" not in row
    assert row.count("| — ") == 3  # made by, KID and its spread


def test_the_number_of_images_stands_behind_precision_and_recall_both_where_they_differ() -> None:
    (row,) = lines(section([replace(QUALITY, compared=40)])[0], "samples.npz")
    assert "| 0.250    | 40 " in row
    (row,) = lines(section([QUALITY])[0], "samples.npz")
    assert "| 50 / 60 " in row


def test_samples_stand_with_how_they_were_made_where_it_is_known() -> None:
    known = replace(QUALITY, samples="b.npz sha256:89ab", made="DiT-S/2, weights random; no guidance; seed 0")
    text, _ = section([QUALITY, known])
    assert "| DiT-S/2, weights random; no guidance; seed 0 |" in lines(text, "b.npz")[0]
    assert "| — " in lines(text, "samples.npz")[0]
