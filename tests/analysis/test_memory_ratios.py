"""Measured against predicted peaks: pairs, distributions, the report."""

from dataclasses import replace
from typing import Any

import pytest

from bench.analysis.memory import memory_claims, memory_ratios
from bench.records.base import Environment, Skipped
from bench.records.memory import Memory
from bench.tables.render import raw
from reports.sections import memory as report
from tests.analysis import builders
from tests.analysis.builders import CPU, H200, META, USE

GIB = 2**30


def peak(gib: float, environment: Environment = META, **fields: Any) -> Memory:  # noqa: ANN401
    use = replace(USE, passes_peak_bytes=int(gib * GIB), parameters_bytes=GIB // 2)
    return builders.memory(use, environment=environment, **fields)


RECORDS = [
    peak(1),
    peak(1.1, CPU),
    peak(2, model="DiT-S/2"),
    peak(1.8, CPU, model="DiT-S/2"),
    peak(4, model="DiT-S/2", work="inference"),
    peak(4, CPU, model="DiT-S/2", work="inference"),
    peak(1.5, H200, limit_bytes=23 * GIB),
    peak(3, CPU, model="DiC-S"),
]


def test_a_peak_is_paired_with_the_prediction_of_its_case() -> None:
    found = memory_ratios.measured_peaks(RECORDS)
    ratios = {(one.device, one.case.model, one.case.work): one.ratio for one in found}
    assert ratios == {
        ("NVIDIA H200", "FCDM-S", "training"): pytest.approx(1.5),
        ("a device", "DiC-S", "training"): None,
        ("a device", "DiT-S/2", "inference"): 1,
        ("a device", "DiT-S/2", "training"): pytest.approx(0.9),
        ("a device", "FCDM-S", "training"): pytest.approx(1.1),
    }
    assert memory_ratios.measured_peaks(RECORDS[::-1]) == found
    assert found[-1].passes_ratio == pytest.approx(0.6 / 0.5)


def test_other_settings_are_another_case() -> None:
    for fields in ({"checkpointing": True}, {"precision": "bf16"}, {"batch": 8}, {"impl": "fast"}):
        (found,) = memory_ratios.measured_peaks([peak(1), peak(1, CPU, **fields)])
        assert found.ratio is None


def test_the_newest_record_of_a_case_counts() -> None:
    newer = {"date": "2026-11-22T00:00:00Z"}
    records = [peak(1), peak(2, replace(META, **newer)), peak(4, replace(CPU, **newer)), peak(9, CPU)]
    (found,) = memory_ratios.measured_peaks(records)
    assert found.ratio == 2


def test_distributions_are_by_device_and_work() -> None:
    gpu, inference, training = memory_ratios.describe(memory_ratios.measured_peaks(RECORDS))
    assert gpu.startswith(
        "measured / predicted peak of training on NVIDIA H200: median 1.500, 1.500 to 1.500"
    )
    assert "of inference on a device: median 1.000, 1.000 to 1.000 in 1 cases of DiT-S/2" in inference
    assert "median 1.000, 0.900 to 1.100 in 2 cases of DiT-S/2, FCDM-S" in training
    assert "largest deviation: DiT-S/2 256 px, batch 4, fp32, 0.900" in training
    assert memory_ratios.describe([]) == []


def test_tables_keep_measured_and_predicted_apart() -> None:
    rows = [raw(memory_ratios.TABLE, one) for one in memory_ratios.measured_peaks(RECORDS)]
    assert [(row["measured_bytes"], row["predicted_bytes"]) for row in rows[-2:]] == [
        (peak(1.8).use.peak_bytes, 2 * GIB),
        (peak(1.1).use.peak_bytes, GIB),
    ]


def test_the_report_has_the_errors_and_peaks_of_a_cpu() -> None:
    out = Skipped(case=peak(9, CPU, batch=64).case, environment=CPU, status="out of memory", reason="9 TiB")
    text, _ = report.section([*RECORDS, out])
    assert (
        "Measured / predicted peak of training on a device: median 1.000, 0.900 to 1.100 in 2 cases" in text
    )
    first, second = text.split("### Measured against predicted peaks, GiB")
    assert "9 TiB" in first
    assert "| DiC-S |" in " ".join(second.split())
    assert " 1.80 |" in second
    assert " 1.80 |" not in first


def test_a_peak_on_a_cpu_judges_no_claim_about_a_gpu() -> None:
    claimed: dict[str, Any] = {"model": "FCDM-XL", "batch": 256, "res": 256, "checkpointing": True}
    assert len(memory_claims.verdicts([peak(1, **claimed)])) == 1
    assert memory_claims.verdicts([peak(1, CPU, **claimed)]) == []
