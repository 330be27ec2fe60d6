"""The paired comparison, driven by a clock that only the compared calls move."""

import itertools
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from bench import versus
from bench.measure.interleaved import Compared, Policy, compare
from bench.measure.prepared import prepared
from bench.records import comparison as comparisons
from bench.records.base import ModelCase, Skipped
from bench.records.comparison import Comparison, ComparisonCase
from bench.stats import intervals, power_law, ratios
from bench.stats.series import median_interval
from bench.store import codec
from bench.tables.render import render
from models import Task, contract
from tests.commands import run
from tests.records.examples import ENVIRONMENT, MODEL

Noise = Callable[[random.Random, float, float], float]  # draw, its size, the time -> factor of a visit
CALL_S = 0.05  # one call fills a visit


def white(draw: random.Random, size: float, now: float) -> float:
    return 1 + max(-0.5, draw.gauss(0, size))


def drift(draw: random.Random, size: float, now: float) -> float:
    """A machine that slows down by 30 % a minute."""
    return white(draw, size, now) * (1 + 0.3 * now / 60)


def waves(draw: random.Random, size: float, now: float) -> float:
    return white(draw, size, now) * (1 + 0.15 * math.sin(2 * math.pi * now / 7))


def bimodal(draw: random.Random, size: float, now: float) -> float:
    return white(draw, size, now) * (1.22 if draw.random() < 0.3 else 1)


def heavy_tailed(draw: random.Random, size: float, now: float) -> float:
    """Heavy-tailed interruptions of infinite variance, some many times as long as the pass."""
    return white(draw, size, now) + size * draw.paretovariate(1.5)


NOISES = [white, drift, waves, bimodal, heavy_tailed]


class Machine:
    """Calls of given durations, each multiplied by a factor of the noise."""

    def __init__(self, seconds: Sequence[float], noise: Noise, size: float, seed: int) -> None:
        self.now = 0.0
        self.synchronised = 0
        self.made: list[int] = []
        self.draw = random.Random(seed)
        self.calls = [lambda arm=arm, s=s: self._call(arm, s, noise, size) for arm, s in enumerate(seconds)]

    def _call(self, arm: int, seconds: float, noise: Noise, size: float) -> None:
        self.made.append(arm)
        self.now += seconds * noise(self.draw, size, self.now)

    def synchronise(self) -> None:
        self.synchronised += 1

    def compare(self, policy: Policy, read: Callable[[], float | None] | None = None) -> Compared:
        return compare(
            self.calls,
            policy,
            clock=lambda: self.now,
            synchronise=self.synchronise,
            read_clock_mhz=read,
        )


class Interrupted(Machine):
    """A machine that other work interrupts at random times."""

    rate = 4.0  # a second
    each_s = 0.005

    def __init__(self, seconds: Sequence[float], seed: int) -> None:
        super().__init__(seconds, white, 0, seed)
        self.left_s = 0.0  # until the next interruption

    def _call(self, arm: int, seconds: float, noise: Noise, size: float) -> None:
        super()._call(arm, seconds, noise, size)
        self.left_s -= seconds
        while self.left_s < 0:
            self.now += self.each_s
            self.left_s += self.draw.expovariate(self.rate)


def quiet(*seconds: float) -> Machine:
    return Machine(seconds, white, 0, 0)


def in_processes(machines: Sequence[Machine], budget_s: float) -> Comparison:
    """A comparison of one process for each machine."""
    policies = [Policy(budget_s=budget_s / len(machines), seed=seed) for seed in range(len(machines))]
    parts = [comparison(one.compare(policy)) for one, policy in zip(machines, policies, strict=True)]
    return comparisons.merged(parts, len(parts))


def verdicts(noise: Noise, size: float, speed: float, runs: int, budget_s: float = 20) -> Counter[str]:
    return Counter(
        in_processes(
            [
                Machine([CALL_S, CALL_S / speed], noise, size, versus.PROCESSES * run + process)
                for process in range(versus.PROCESSES)
            ],
            budget_s,
        ).verdict(1)
        for run in range(runs)
    )


def regimes(run: int, faster: float = 1.0) -> str:
    """Verdict on a model and itself, of which each draws one of two speeds in every process."""
    draw = random.Random(run)
    speeds = [(draw.choice((1.0, 1.25)), draw.choice((1.0, 1.25))) for _ in range(versus.PROCESSES)]
    return in_processes(
        [
            Machine([CALL_S * a, CALL_S * b / faster], white, 0.02, 100 * run + process)
            for process, (a, b) in enumerate(speeds)
        ],
        20,
    ).verdict(1)


def test_a_model_of_two_regimes_is_never_faster_than_itself() -> None:
    found = Counter(regimes(run) for run in range(60))
    assert found == {"too close to call": 60}


def test_process_differences_do_not_hide_five_percent() -> None:
    def found(run: int) -> str:
        draw = random.Random(run)
        processes = [
            Machine([CALL_S, CALL_S / 1.05 * (1 + draw.gauss(0, 0.007))], white, 0.03, 100 * run + process)
            for process in range(versus.PROCESSES)
        ]
        return in_processes(processes, 40).verdict(1)

    assert Counter(map(found, range(20)))["faster"] >= 19


@pytest.mark.parametrize("size", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("noise", NOISES)
def test_equal_calls_differ_in_less_than_5_percent_of_runs(noise: Noise, size: float) -> None:
    said = verdicts(noise, size, 1.0, runs=40)
    assert said["faster"] + said["slower"] <= 1, said


@pytest.mark.parametrize("noise", [white, drift, waves])
def test_equal_calls_are_found_the_same_at_low_noise(noise: Noise) -> None:
    assert verdicts(noise, 0.01, 1.0, runs=20, budget_s=60) == {"same": 20}


@pytest.mark.parametrize("size", [0.01, 0.03, 0.05])
@pytest.mark.parametrize(("speed", "verdict"), [(0.95, "slower"), (1.05, "faster")])
@pytest.mark.parametrize("noise", [white, drift, waves])
def test_five_percent_are_found(noise: Noise, speed: float, verdict: str, size: float) -> None:
    said = verdicts(noise, size, speed, runs=20, budget_s=60)
    assert said[verdict] >= 19, said


@pytest.mark.parametrize("noise", [bimodal, heavy_tailed])
def test_five_percent_are_never_taken_for_the_opposite(noise: Noise) -> None:
    said = verdicts(noise, 0.05, 0.95, runs=20)
    assert said["faster"] + said["same"] == 0, said


def test_interval_covers_the_ratio_under_adaptive_stopping() -> None:
    hits = 0
    for seed in range(100):
        visits = Machine([CALL_S, CALL_S / 0.97], white, 0.03, seed).compare(Policy(budget_s=20, seed=seed))
        interval = visits.interval(1)
        assert interval is not None
        hits += interval[0] <= 0.97 <= interval[1]
    assert hits >= 97


def test_a_round_is_a_random_order_and_its_reverse() -> None:
    visits = quiet(0.1, 0.1, 0.1).compare(Policy(budget_s=100))
    rounds = [visits.order[i : i + 6] for i in range(0, len(visits.order), 6)]
    assert all(sorted(one[:3]) == [0, 1, 2] and one[3:] == one[2::-1] for one in rounds)
    assert len(set(rounds)) > 2
    assert visits.order == quiet(0.1, 0.1, 0.1).compare(Policy(budget_s=100)).order
    assert visits.order != quiet(0.1, 0.1, 0.1).compare(Policy(budget_s=100, seed=1)).order


def test_every_arm_is_warmed_up_until_its_passes_stop_changing() -> None:
    machine = quiet(0.1, 0.1)
    slowness = itertools.chain([2.0, 1.5, 1.2, 1.1], itertools.repeat(1.0))
    plain = machine.calls[1]

    def cold() -> None:
        plain()
        machine.now += 0.1 * next(slowness)

    machine.calls[1] = cold
    visits = machine.compare(Policy(budget_s=100))
    assert visits.warmup_stationary == (True, True)
    assert visits.warmup_times_s[0] == pytest.approx([0.1] * 5)
    assert len(visits.warmup_times_s[1]) > 5
    assert machine.made[: sum(map(len, visits.warmup_times_s))] == [0] * 5 + [1] * len(
        visits.warmup_times_s[1]
    )
    assert visits.ratio(1) == pytest.approx(0.5)


def test_visits_are_long_enough_and_similar_arms_get_equal_calls() -> None:
    visits = quiet(0.001, 0.0104, 0.00104).compare(Policy(budget_s=100))
    assert visits.calls == (50, 5, 50)
    assert min(visits.visits_s) >= 0.05 - 1e-9
    # 1.43 and 1.56 calls would fill a visit: of neither is the reference, and the report compares them too
    assert quiet(0.3, 0.035, 0.032).compare(Policy(budget_s=100)).calls == (1, 1, 1)
    assert visits.times_s(1) == pytest.approx([0.0104] * (len(visits.order) // 3))


def test_one_slow_arm_does_not_lengthen_the_other_visits() -> None:
    visits = quiet(0.3, 0.1, 0.3).compare(Policy(budget_s=20))
    assert visits.calls == (1, 1, 1)
    assert visits.stopped_by == "precision"  # three calls of 0.1 s a visit would leave it at 9 rounds


@pytest.mark.parametrize("seconds", [(0.279, 0.0737), (0.0737, 0.279), (0.25, 0.2), (0.06, 0.004)])
def test_interruptions_bias_the_ratio_less_than_their_share(
    seconds: tuple[float, float],
) -> None:
    found = []
    for seed in range(10):
        visits = Interrupted(seconds, seed).compare(Policy(budget_s=30, seed=seed))
        faster = seconds[0] > seconds[1]
        assert ratios.verdict(visits.interval(1), 0.01) == ("faster" if faster else "slower")
        found.append(visits.ratio(1) * seconds[1] / seconds[0])
    assert intervals.median(found) == pytest.approx(1, abs=Interrupted.rate * Interrupted.each_s)


def test_device_is_synchronised_only_before_and_after_a_visit() -> None:
    machine = quiet(0.01, 0.01)
    visits = machine.compare(Policy(budget_s=100))
    assert visits.calls == (5, 5)
    assert machine.synchronised == 2 * (sum(map(len, visits.warmup_times_s)) + len(visits.order))


def test_sampling_stops_at_the_verdicts_after_ten_rounds() -> None:
    visits = quiet(0.1, 0.1, 0.2).compare(Policy(budget_s=100))
    assert (visits.stopped_by, visits.unmet) == ("precision", ())
    assert len(visits.order) == 10 * 6


def test_exhausted_budget_reports_the_open_verdicts() -> None:
    noisy = Machine([0.1, 0.1, 0.2], white, 0.2, 1).compare(Policy(budget_s=20))
    assert (noisy.stopped_by, noisy.unmet) == ("budget", ("2 of 2 ratios within 0.5 %",))
    long = quiet(30, 30)
    visits = long.compare(Policy(budget_s=10))
    assert (visits.stopped_by, visits.unmet) == ("budget", ("at least 10 rounds",))
    assert len(long.made) == 2 + 4  # one pass of warm-up each, and one round
    assert visits.interval(1) is None
    assert ratios.verdict(None, 0.01) == "too few rounds"


def test_the_least_rounds_of_one_process_have_an_interval() -> None:
    series = [0.1 * i for i in range(ratios.LEAST_ROUNDS)]
    assert median_interval(series[1:], ratios.CONFIDENCE) is None
    assert median_interval(series, ratios.CONFIDENCE) is not None


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.011, 1.2), "faster"),
        ((0.8, 0.989), "slower"),
        ((0.995, 1.005), "same"),
        ((1.005, 1.02), "too close to call"),
        ((0.98, 1.02), "too close to call"),
        ((0.98, 0.995), "too close to call"),
    ],
)
def test_a_verdict_needs_the_whole_interval(interval: tuple[float, float], verdict: str) -> None:
    assert ratios.verdict(interval, 0.01) == verdict


def test_resampled_medians_equal_a_bootstrap() -> None:
    import numpy

    draw = numpy.random.default_rng(1)
    for n in (10, 11, 40):
        values = draw.standard_t(2, n)
        drawn = numpy.median(values[draw.integers(0, n, (20_000, n))], axis=1)
        at = [0.025, 0.25, 0.5, 0.75, 0.975]
        made = power_law.resampled_medians(list(values), numpy.random.default_rng(0))
        assert numpy.quantile(made, at) == pytest.approx(numpy.quantile(drawn, at), abs=0.03)


def clocked(clocks: Sequence[float | None]) -> Comparison:
    """Two equal arms with constant clocks: that of the reference, that of the other arm."""
    return clocked_by(lambda arm, now: clocks[arm])


def clocked_by(read: Callable[[int, float], float | None]) -> Comparison:
    """Two equal arms whose clocks are a function of the arm and the time."""
    machine = quiet(0.1, 0.1)
    return comparison(machine.compare(Policy(budget_s=100), lambda: read(machine.made[-1], machine.now)))


def diverging(arm: int, now: float) -> float:
    """The clock of the second arm falls by 1 % a second; that of the reference is constant."""
    return 1980.0 * (1 - 0.01 * now * arm)


def comparison(visits: Compared) -> Comparison:
    return Comparison(
        case=ComparisonCase(
            device="cpu",
            arms=(ModelCase(**MODEL),) * len(visits.calls),
            budget_s=30.0,
            precision_target=0.01,
        ),
        environment=ENVIRONMENT,
        order=visits.order,
        visits_s=visits.visits_s,
        calls=visits.calls,
        clocks_mhz=visits.clocks_mhz,
        warmup_times_s=visits.warmup_times_s,
        warmup_stationary=visits.warmup_stationary,
        margin=0.01,
        stopped_by=visits.stopped_by,
        unmet=visits.unmet,
        build_s=(1.0,) * len(visits.calls),
        compile_s=(None,) * len(visits.calls),
        matmul_tf32=False,
        conv_tf32=False,
    )


def test_arms_with_diverging_clocks_are_refused() -> None:
    drifting = clocked_by(diverging)
    assert drifting.verdict(1) == "refused"
    message = r"clocks drifted apart: this one's by -2\.\d % against the reference's"
    assert re.match(message, drifting.why_refused(1) or "")


def test_steady_clock_difference_is_a_remark_and_no_refusal() -> None:
    capped = clocked([1980.0, 1900.0])
    assert capped.verdict(1) == "same within one process"
    assert capped.clock_remark(1) == "clock -4.0 %, 1900 MHz against 1980 MHz of the reference"
    assert capped.clock_remark(0, 1).startswith("clock +4.2 %, 1980 MHz")
    assert clocked([1980.0, 1965.0]).clock_remark(1) == ""  # one step


def test_clocks_with_a_common_drift_or_jumps_are_not_refused() -> None:
    assert clocked_by(lambda arm, now: 1980 - 100 * now - 50 * arm).verdict(1) == "same within one process"
    for seed in range(20):
        draw = random.Random(seed)
        jumping = clocked_by(lambda arm, now, draw=draw: draw.choice([1980, 1905, 1830]))  # type: ignore[misc]
        assert jumping.verdict(1) == "same within one process"


def test_unread_clocks_are_blank_and_not_refused() -> None:
    for blank in (clocked([1500.0, None]), comparison(quiet(0.1, 0.1).compare(Policy(budget_s=100)))):
        assert blank.mean_clock_mhz(1) is None
        assert blank.verdict(1) == "same within one process"
        assert blank.clock_remark(1) == ""


def test_comparison_round_trips_through_its_line() -> None:
    kept = clocked([1500.0, None])
    assert codec.from_dict(json.loads(codec.to_line(kept))) == kept
    assert kept.rounds == 10
    assert kept.images_per_s(1) == pytest.approx(4 / 0.1)
    failed = Skipped(
        case=kept.case, environment=ENVIRONMENT, status="out of memory", reason="asked for 3 TiB"
    )
    assert codec.from_dict(json.loads(codec.to_line(failed))) == failed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calls": (1,)}, "two or more arms"),
        ({"calls": (1, 0)}, "each with its calls"),
        ({"visits_s": (1.0,)}, "a time from 1e-12 to 1e9 s for every visit"),
        ({"order": (0,) * 40}, "the same number of visits"),
        ({"clocks_mhz": (1500.0,)}, "a clock for every visit, or none"),
    ],
)
def test_impossible_comparisons_cannot_be_made(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(clocked([1500.0, 1500.0]), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["DiT-S/8"], "MODEL: a comparison needs at least two, the reference first, got DiT-S/8"),
        ([], "the following arguments are required: MODEL"),
        (["DiT-S/8", "FDCM-XL"], "MODEL FDCM-XL: no such backbone; did you mean FCDM-XL"),
        (["DiT-S/8", "FCDM-Z*"], "MODEL FCDM-Z*: matches no backbone"),
        (["DiT-S/8", "FCDM-S", "--res", "264"], "must be a multiple of patch 8, got 33"),
        (["DiT-S/8", "tests.tiny:WrongShape"], "must return (2, 8, 32, 32)"),
        (["DiT-S/8", "FCDM-S", "--margin", "2"], "--margin: must be a share above 0 and below 1"),
        (["DiT-S/8", "FCDM-S", "--budget", "0"], "--budget: must be seconds above zero"),
        (["DiT-S/8", "FCDM-S", "--precision", "tf32", "--device", "cpu"], "only a CUDA device has it"),
        (["DiT-S/8", "FCDM-S", "--out", "/"], "--out /: is a folder"),
        (["DiT-S/8", "FCDM-S", "--cuda-graphs", "--device", "cpu"], "needs a CUDA device"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(versus.main, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


QUICK = ["--device", "cpu", "--res", "64", "--batch", "1", "--budget", "1s", "--format", "json"]


def test_versus_has_a_row_for_every_arm_and_keeps_every_visit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    assert run(versus.main, "dit-s/8", "tests.tiny:Tiny", *QUICK, "--out", str(path)) == 0
    first, second = json.loads(capsys.readouterr().out)
    (kept,) = codec.read(path).records
    assert isinstance(kept, Comparison)
    assert (first["model"], second["model"]) == ("DiT-S/8", "tests.tiny:Tiny")
    assert first["reference"] == second["reference"] == "DiT-S/8"
    assert (first["verdict"], first["ratio_reference_s_over_s"]) == ("reference", None)
    assert second["ratio_reference_s_over_s"] == kept.ratio(1) > 1
    assert second["verdict"] == kept.verdict(1)
    assert second["rounds"] == kept.rounds
    assert len(second["times_s"]) == 2 * kept.rounds
    assert second["clock_mhz"] is None
    assert second["stopped_by"] in ("precision", "budget")
    # the same case is answered from the file
    assert run(versus.main, "DiT-S/8", "tests.tiny:Tiny", *QUICK, "--out", str(path)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [first, second]
    assert "1 of 1 were in" in printed.err


def test_other_models_or_another_order_are_another_case() -> None:
    case = clocked([1500.0, None]).case
    one, other = case.arms[0], replace(case.arms[0], model="DiT-S/2")
    changed = [(one, one), (one, other), (other, one), (one, one, one)]
    keys = {codec.case_key(replace(case, arms=arms)) for arms in changed}
    assert len(keys) == 4
    assert codec.case_key(case) in keys


@pytest.mark.parametrize(
    ("factory", "status", "message"),
    [
        ("KilledWhenReal", "crashed", "SIGKILL"),
        ("AsksForTooMuch", "out of memory", "tests.tiny:AsksForTooMuch: "),
        ("TooLarge", "out of memory", "tests.tiny:TooLarge: "),
        ("BrokenWhenReal", "error", "tests.tiny:BrokenWhenReal: raised RuntimeError"),
    ],
)
def test_a_comparison_that_fails_is_rows_with_the_reason(
    factory: str, status: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.jsonl"
    args = ["tests.tiny:Tiny", f"tests.tiny:{factory}", *QUICK, "--out", str(path)]
    assert run(versus.main, *args) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == [status, status]
    assert message in rows[1]["reason"]
    assert rows[1]["ratio_reference_s_over_s"] is None
    assert isinstance(codec.read(path).records[0], Skipped)


def test_nested_prepared_models_hold_no_inference_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []

    def build(name: str, task: Task, device: str, impl: str) -> nn.Module:
        made.append(contract.build(name, task, device, impl))
        return made[-1]

    monkeypatch.setattr(prepared, "build", build)
    tiny = ModelCase(**{**MODEL, "model": "tests.tiny:Tiny", "res": 64, "latent_size": 8, "batch": 1})
    with prepared.prepare(tiny, None) as first, prepared.prepare(tiny, None) as second:
        first.call()
        second.call()
    # inference tensors are dispatched faster, so a model that holds them is not comparable
    assert not [p for model in made for p in model.parameters() if p.is_inference()]


@pytest.mark.parametrize("form", ["table", "md", "latex"])
def test_the_heading_says_which_way_the_ratio_goes(form: str) -> None:
    text = render(comparisons.TABLE, comparisons.rows(clocked_by(diverging)), form)
    assert "reference time / time" in text
    assert "refused" in text
    assert "clocks drifted apart" in text
    assert "MHz" in text
    text = render(comparisons.TABLE, comparisons.rows(clocked([1980.0, 1900.0])), form)
    assert "1900 MHz against 1980 MHz" in text
