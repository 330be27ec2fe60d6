"""Memory measured on the CPU: events of the allocator, real steps against predictions, the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import memory
from bench.jobs import worker
from bench.machine import environment
from bench.measure.memory.live_bytes import LiveBytes
from bench.measure.memory.peak import measure, use_of
from bench.measure.memory.sections import CounterMarks, Section, cpu_allocator, sections_of
from bench.records.memory import Memory, MemoryCase
from bench.store.codec import read
from models.registry import family_of
from tests.commands import run

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:torch", "ignore::UserWarning:torch")
KB = 1000  # a vector of 250 float32


def test_every_section_has_its_begin_and_its_peak() -> None:
    with cpu_allocator() as marks:
        kept = torch.zeros(250)
        marks.begin("three more, two freed")
        more = [torch.zeros(250) for _ in range(3)]
        del more[1:]
        marks.begin("in place", 7)
        kept.sin_()
        marks.begin("freed")
        del kept, more
        marks.begin("end")
    found = [(s.name, s.begin_bytes, s.peak_bytes, s.gradients_bytes) for s in marks.sections]
    assert found == [
        ("three more, two freed", KB, 4 * KB, 0),
        ("in place", 2 * KB, 2 * KB, 7),
        ("freed", 2 * KB, 2 * KB, 0),
    ]


def test_temporaries_within_an_operator_count() -> None:
    x = torch.randn(250)
    with cpu_allocator() as marks:
        marks.begin("median")
        x.median()  # of a copy
        marks.begin("end")
    with LiveBytes("cpu") as live:
        live.follow([x])
        x.median()
    assert marks.sections[0].peak_bytes >= KB
    assert live.peak_bytes < 2 * KB


def test_a_counter_is_read_where_sections_begin() -> None:
    with LiveBytes() as live:
        marks = CounterMarks(live)
        marks.begin("one")
        kept = torch.empty(250, device="meta").sin()
        marks.begin("two", 5)
        del kept
        marks.begin("end")
    assert marks.sections == [
        Section(name="one", gradients_bytes=0, begin_bytes=0, peak_bytes=2 * KB),
        Section(name="two", gradients_bytes=5, begin_bytes=KB, peak_bytes=KB),
    ]


def test_a_trace_without_a_mark_is_refused() -> None:
    with pytest.raises(RuntimeError, match="recorded 0 of 1 marks"):
        sections_of([], [("forward", 0)])


def test_use_is_that_of_the_last_step() -> None:
    def section(name: str, begin: int, peak: int, gradients: int = 0) -> Section:
        return Section(name=name, gradients_bytes=gradients, begin_bytes=begin, peak_bytes=peak)

    setup = [
        section("model", 1, 9),
        section("inputs", 11, 12),
        section("ema", 12, 22),
        section("ready", 22, 22),
    ]
    passes = [section("forward", 22, 40), section("backward", 40, 60), section("backward", 30, 60, 4)]
    update = [section("update", 32, 55, 10), section("average", 52, 53, 10), section("clear", 52, 52, 10)]
    one = use_of([*setup, *passes, *update])
    assert (one.parameters_bytes, one.ema_bytes, one.optimizer_bytes, one.gradients_bytes) == (10, 10, 20, 10)
    assert (one.passes_peak_bytes, one.passes_peak_phase, one.passes_gradients_bytes) == (80, "backward", 0)
    second = [section("forward", 42, 70), section("update", 52, 90, 10), section("average", 52, 53, 10)]
    two = use_of([*setup, *passes, *update, *second])
    assert (two.passes_peak_bytes, two.update_peak_bytes, two.optimizer_bytes) == (70, 90, 20)


def on_cpu(name: str, work: str, checkpointing: bool = False, precision: str = "fp32") -> MemoryCase:
    return MemoryCase(
        **{
            "device": "cpu",
            "model": name,
            "family": family_of(name),
            "res": 256,
            "latent_size": 32,
            "batch": 2,
        },
        precision=precision,
        work=work,
        checkpointing=checkpointing,
        limit_bytes=None,
    )


def measured_and_predicted(case: MemoryCase) -> tuple[Memory, Memory]:
    here, meta = environment.gather("cpu", case.model), environment.gather("meta", case.model)
    return measure(case, here), measure(replace(case, device="meta"), meta)


@pytest.mark.parametrize(("name", "checkpointing"), [("FCDM-Ti", True), ("DiT-Ti/2", False)])
def test_a_step_on_the_cpu_holds_what_is_predicted(name: str, checkpointing: bool) -> None:
    real, expected = (one.use for one in measured_and_predicted(on_cpu(name, "training", checkpointing)))
    assert real.gradients_bytes == expected.gradients_bytes
    for part in ("parameters_bytes", "optimizer_bytes", "ema_bytes"):
        # a prediction rounds every tensor up to blocks of 512 bytes
        assert getattr(real, part) == pytest.approx(getattr(expected, part), rel=0.05)
    # a convolution's temporary layouts depend on the instructions of a CPU; the rest of the peak does not
    assert 0.9 < real.peak_bytes / expected.peak_bytes < 1.5
    assert real.process_bytes is None or real.process_bytes > real.peak_bytes
    assert real.reserved_bytes is None


@pytest.mark.parametrize("work", ["inference", "training"])
def test_bf16_on_a_cpu_is_of_weights_or_autocast(work: str) -> None:
    full, half = (
        measure(on_cpu("tests.tiny:Tiny", work, precision=precision), environment.gather("cpu", "")).use
        for precision in ("fp32", "bf16")
    )
    expected = full.parameters_bytes / (2 if work == "inference" else 1)
    assert half.parameters_bytes == pytest.approx(expected, rel=0.01)
    assert half.gradients_bytes == full.gradients_bytes


def test_the_command_measures_beside_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # in this process: a worker takes seconds to start; test_memory.py has one
    monkeypatch.setattr(worker, "run", lambda _, case, here, *__, **___: measure(case, here))
    path = tmp_path / "records.jsonl"
    # not tests.tiny: most of its peak is a convolution's layouts, which depend on the CPU (docs/memory.md)
    args = ["--device", "cpu", "meta", "--model", "DiT-Ti/2", "--batch", "2", "--work", "training"]
    assert run(memory.main, *args, "--checkpointing", "off", "--format", "json", "--out", str(path)) == 0
    printed = capsys.readouterr()
    measured, predicted = json.loads(printed.out)
    assert (measured["predicted"], predicted["predicted"]) == (False, True)
    assert measured["peak_bytes"] / predicted["peak_bytes"] == pytest.approx(1, abs=0.1)
    assert measured["peak_phase"] == predicted["peak_phase"]
    assert measured["process_bytes"] is None or measured["process_bytes"] > measured["peak_bytes"]
    assert "measured on a CPU: bytes of torch's allocator" in printed.err
    assert f"measured / predicted peak of training on {measured['device']}" in printed.err
    assert [record.case.device for record in read(path).records] == ["cpu", "meta"]
