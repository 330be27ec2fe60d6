"""Learning curves: known answers, coverage of intervals, rankings by hand."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.analysis.learning import learning_curves, loss_comparison, rankings
from bench.analysis.learning.learning_curves import Estimate, TrainingStudy
from bench.records.base import Skipped
from bench.records.training import Evaluation, TrainingCase, TrainingRun
from bench.stats import intervals
from tests.records import examples

RECIPE = replace(examples.RECIPE, train_images=1500, validation_images=297, batch=64, steps=400)
STEPS = tuple(range(0, 401, 50))


def trained(
    model: str,
    seed: int,
    losses: Sequence[float],
    *,
    steps: Sequence[int] = STEPS,
    s_per_step: float = 0.1,
    train_macs: int = 1_000_000,
    joules: bool = False,
    status: str = "ok",
    bins: Sequence[float] = (0.0, 0.0),
    date: str = "2026-11-21T00:00:00Z",
) -> TrainingRun:
    """A run with given losses; those of the averages are 1 and 2 higher."""
    fields = {**examples.MODEL, "model": model, "family": model.partition("-")[0]}
    return TrainingRun(
        case=TrainingCase(**fields, recipe=RECIPE, seed=seed, processes=1),
        environment=replace(examples.ENVIRONMENT, date=date),
        train_macs=train_macs,
        evaluations=tuple(
            Evaluation(
                step=step,
                seconds=s_per_step * step,
                joules=5.0 * step if joules else None,
                train_loss=loss if step else None,
                loss=loss,
                ema_losses=(loss + 1, loss + 2),
                bin_losses=tuple(loss + extra for extra in bins),
            )
            for step, loss in zip(steps, losses, strict=False)
        ),
        status=status,
        reason="" if status == "ok" else "step 120: the loss is not finite",
    )


def study(*runs: TrainingRun | Skipped) -> TrainingStudy:
    (made,) = learning_curves.studies(runs)
    return made


def power(step: float, speed: float = 1.0, offset: float = 0.0) -> float:
    """A loss that falls with the logarithm of the steps: learning k times faster lowers it by ln(k)."""
    return 3.0 + offset - math.log(max(step * speed, 1.0))


def faster(k: float, seeds: int = 3, wobble: float = 0.0, **more: float) -> TrainingStudy:
    """DiT and FCDM; FCDM needs k times fewer steps."""
    draw = random.Random(1)
    runs = []
    for seed in range(seeds):
        offset, own = 0.5 * seed, draw.gauss(0, wobble) if wobble else 0.0
        runs.append(trained("DiT-S/2", seed, [power(s, 1, offset) for s in STEPS]))
        losses = [power(s, k, offset + own) if s else power(0, 1, offset) for s in STEPS]
        runs.append(trained("FCDM-S", seed, losses, **more))
    return study(*runs)


@pytest.mark.parametrize(
    ("freedom", "confidence", "printed"),
    [
        (1, 0.95, 12.706),
        (2, 0.95, 4.303),
        (3, 0.95, 3.182),
        (4, 0.99, 4.604),
        (7, 0.9, 1.895),
        (30, 0.95, 2.042),
    ],
)
def test_students_t_equals_printed_tables(freedom: int, confidence: float, printed: float) -> None:
    assert intervals.student_t(freedom, confidence) == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize("seeds", [3, 5])
def test_interval_over_seeds_covers_the_true_mean_in_95_percent(seeds: int) -> None:
    draw = random.Random(2)
    inside = 0
    for _ in range(4000):
        interval = Estimate(values=tuple(draw.gauss(0.3, 1.0) for _ in range(seeds))).interval
        assert interval is not None
        inside += interval[0] <= 0.3 <= interval[1]
    assert 0.938 < inside / 4000 < 0.962  # 0.95 +- 3.5 standard errors


def test_two_seeds_give_a_mean_and_no_interval() -> None:
    two = Estimate(values=(1.0, 2.0))
    assert (two.mean, two.interval, two.verdict) == (1.5, None, "")


def test_differences_are_taken_within_a_seed() -> None:
    found = loss_comparison.difference(
        faster(2), "FCDM-S"
    )  # seeds differ by 0.5, models by ln(2) within each
    assert found is not None
    assert found.position == 400
    assert found.difference.values == pytest.approx([-math.log(2)] * 3)
    assert found.difference.verdict == "lower"
    assert statistics.stdev(found.losses) == pytest.approx(0.5)


def test_equal_model_gives_an_inconclusive_verdict() -> None:
    found = loss_comparison.difference(faster(1, wobble=0.1), "FCDM-S")
    assert found is not None
    assert found.difference.verdict == "inconclusive"


@pytest.mark.parametrize("axis", ["steps", "images", "flops", "seconds"])
def test_known_speed_up_is_found_on_every_axis(axis: learning_curves.Axis) -> None:
    """The model needs 2.5 times fewer steps, each of half the FLOPs and three times the seconds."""
    made = faster(2.5, train_macs=500_000, s_per_step=0.3)
    found = loss_comparison.speed_up(made, "FCDM-S", axis)
    wanted = {"steps": 2.5, "images": 2.5, "flops": 5.0, "seconds": 2.5 / 3}[axis]
    assert found is not None
    assert found.ratio is not None
    assert found.ratio == pytest.approx(wanted, rel=1e-6)
    assert found.interval == pytest.approx((wanted, wanted), rel=1e-6)


def test_equal_work_and_time_are_compared_where_both_have_run() -> None:
    made = faster(2.5, train_macs=500_000, s_per_step=0.3)
    work = loss_comparison.difference(made, "FCDM-S", "flops")
    time = loss_comparison.difference(made, "FCDM-S", "seconds")
    assert work is not None
    assert time is not None
    assert work.position == 2 * 500_000 * 400 * 64  # the last of FCDM, at half of DiT's
    assert work.difference.mean == pytest.approx(-math.log(2.5 * 2))
    assert time.position == pytest.approx(40.0)  # DiT's last
    assert time.difference.mean == pytest.approx(-math.log(2.5 / 3), rel=1e-3)


def test_joules_are_compared_only_where_measured() -> None:
    losses = [power(step) for step in STEPS]
    without = study(trained("DiT-S/2", 0, losses), trained("FCDM-S", 0, losses, joules=True))
    assert loss_comparison.difference(without, "FCDM-S", "joules") is None
    assert loss_comparison.speed_up(without, "FCDM-S", "joules") is None
    assert learning_curves.mean_curve(without, "DiT-S/2", "joules") == ()
    assert learning_curves.mean_curve(without, "FCDM-S", "joules")[-1].position == 2000


def test_joules_missing_in_the_first_seconds_leave_gaps() -> None:
    losses = [power(step) for step in STEPS]
    late = trained("DiT-S/2", 0, losses, joules=True)
    unread = [replace(at, joules=None) if at.step < 200 else at for at in late.evaluations]
    points = learning_curves.curve(replace(late, evaluations=tuple(unread)), "joules")
    assert [position for position, _ in points] == [0, 1000, 1250, 1500, 1750, 2000]


def test_unreached_loss_gives_a_bound_in_place_of_a_ratio() -> None:
    slow = [power(step, 0.5) if step else power(0) for step in STEPS]
    fine = [power(step, 2.0) if step else power(0) for step in STEPS]
    dit = [power(step) for step in STEPS]
    made = study(
        *(trained("DiT-S/2", seed, dit) for seed in range(3)),
        *(trained("DiC-S", seed, slow if seed == 1 else fine) for seed in range(3)),
    )
    found = loss_comparison.speed_up(made, "DiC-S")
    assert found is not None
    assert found.ratios == (pytest.approx(2.0), None, pytest.approx(2.0))
    assert (found.reached, found.ratio, found.interval) == (2, None, None)
    assert found.bounds[1] == pytest.approx(1.0)
    swapped = loss_comparison.speed_up(made, "DiT-S/2", reference="DiC-S")
    assert swapped is not None
    assert swapped.ratios[1] == pytest.approx(2.0)


def test_reference_that_gets_worse_counts_with_its_lowest_loss() -> None:
    made = study(
        trained("DiT-S/2", 0, [3, 2, 1, 2], steps=(0, 100, 200, 400)),
        trained("FCDM-S", 0, [3, 1, 0.5, 0.5], steps=(0, 100, 200, 400)),
    )
    found = loss_comparison.speed_up(made, "FCDM-S")
    assert found is not None
    assert found.ratio == pytest.approx(2.0)


def test_curve_is_interpolated_over_the_logarithm_of_its_axis() -> None:
    points = ((0.0, 4.0), (10.0, 3.0), (1000.0, 1.0))
    assert learning_curves.loss_at(points, 5.0) == pytest.approx(3.5)
    assert learning_curves.loss_at(points, 100.0) == pytest.approx(2.0)
    assert learning_curves.loss_at(points, 1001.0) is None
    assert learning_curves.reached_at(points, 2.0) == pytest.approx(100.0)
    assert learning_curves.reached_at(points, 3.5) == pytest.approx(5.0)
    assert learning_curves.reached_at(points, 0.5) is None


def test_losses_of_averages_are_found_by_their_index() -> None:
    made = faster(2)
    assert learning_curves.final_loss(made, "DiT-S/2", ema=1).mean == pytest.approx(
        learning_curves.final_loss(made, "DiT-S/2").mean + 2
    )


def test_differences_by_range_of_noise_keep_their_order() -> None:
    made = study(
        *(trained("DiT-S/2", seed, [1.0] * 9, bins=(0.0, 1.0, 2.0)) for seed in range(3)),
        *(trained("FCDM-S", seed, [1.0] * 9, bins=(0.5, 1.0, 1.0)) for seed in range(3)),
    )
    found = loss_comparison.bin_differences(made, "FCDM-S")
    assert [bin_.difference.mean for bin_ in found] == [0.5, 0.0, -1.0]
    assert [bin_.percent and bin_.percent.mean for bin_ in found] == pytest.approx([50, 0, -100 / 3])


def in_bins(table: dict[str, list[float]]) -> TrainingStudy:
    """model -> loss of each seed in a single range of timesteps."""
    return study(
        *(
            trained(model, seed, [1.0] * 9, bins=(loss - 1,))
            for model, losses in table.items()
            for seed, loss in enumerate(losses)
        )
    )


def test_relative_change_stays_above_minus_100_and_reverses() -> None:
    losses = {"DiT-S/2": [0.004, 0.005, 0.006], "FCDM-S": [0.006, 0.007, 0.02]}
    (found,) = loss_comparison.bin_differences(in_bins(losses), "FCDM-S")
    (back,) = loss_comparison.bin_differences(in_bins(losses), "DiT-S/2", reference="FCDM-S")
    assert found.percent is not None
    assert back.percent is not None
    assert found.percent.interval is not None
    assert back.percent.interval is not None
    low, high = found.percent.interval
    assert -100 < low < found.percent.mean < high
    assert (1 + low / 100) * (1 + back.percent.interval[1] / 100) == pytest.approx(1)
    assert (1 + found.percent.mean / 100) * (1 + back.percent.mean / 100) == pytest.approx(1)


def test_loss_below_zero_has_a_difference_but_no_percentage() -> None:
    made = in_bins({"DiT-S/2": [0.5, 0.5, 0.5], "FCDM-S": [0.25, -0.25, 0.25]})
    (found,) = loss_comparison.bin_differences(made, "FCDM-S")
    assert found.percent is None
    assert found.difference.values == pytest.approx((-0.25, -0.75, -0.25))


def test_runs_of_another_recipe_are_another_study() -> None:
    here = trained("DiT-S/2", 0, [1.0] * 9)
    other = replace(here, case=replace(here.case, recipe=replace(RECIPE, learning_rate=1e-4)))
    assert len(learning_curves.studies([here, other])) == 2


def test_newest_record_of_a_seed_counts_and_failed_ones_are_kept() -> None:
    old = trained("DiT-S/2", 0, [1.0] * 9)
    new = trained("DiT-S/2", 0, [2.0] * 9, date="2026-11-22T00:00:00Z")
    bad = trained("FCDM-S", 0, [1.0] * 3, status="not finite")
    made = study(new, old, bad)
    assert learning_curves.final_loss(made, "DiT-S/2").mean == 2.0
    assert made.failed == (bad,)
    assert made.models == ("DiT-S/2",)


def test_only_common_seeds_are_compared() -> None:
    made = study(
        *(trained("DiT-S/2", seed, [1.0] * 9) for seed in (0, 1, 2)),
        *(trained("FCDM-S", seed, [0.5 - seed] * 9) for seed in (1, 2, 3)),
    )
    found = loss_comparison.difference(made, "FCDM-S")
    assert found is not None
    assert found.difference.values == (-1.5, -2.5)
    assert found.difference.interval is None


def rows(table: dict[str, list[list[float]]]) -> TrainingStudy:
    """model -> losses of each seed at steps 0, 100, 200, 300."""
    return study(
        *(
            trained(model, seed, losses, steps=(0, 100, 200, 300))
            for model, runs in table.items()
            for seed, losses in enumerate(runs)
        )
    )


def test_rankings_by_hand() -> None:
    made = rows(
        {
            "A": [[9, 5, 1, 1], [9, 5, 1, 1], [9, 5, 4, 1]],
            "B": [[9, 4, 3, 2], [9, 4, 3, 2], [9, 4, 3, 2]],
            "C": [[9, 3, 5, 5], [9, 3, 5, 5], [9, 6, 5, 5]],
        }
    )
    first, second, third = rankings.rankings(made)
    assert first.models == ("B", "C", "A")  # means 5, 4, 4: B and C tie, B was named first
    assert second.models == third.models == ("A", "B", "C")
    assert second.agreement == pytest.approx(2 / 3)
    assert third.agreement == 1.0
    assert first.tau == pytest.approx(-2 / math.sqrt(2 * 3))  # A-B and A-C turned; B-C tied in one of the two
    assert (second.tau, third.tau) == (1.0, 1.0)
    assert rankings.stable_from((first, second, third)) == 200


def test_correlations_by_hand() -> None:
    assert rankings.kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert rankings.spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)
    assert rankings.spearman([1, 1, 2], [1, 1, 2]) == pytest.approx(1.0)
    assert rankings.kendall([1, 1, 1], [1, 2, 3]) == rankings.spearman([1, 1, 1], [1, 2, 3]) == 0.0


@pytest.mark.parametrize(("models", "least"), [(4, 2 / 24), (5, 2 / 120)])
def test_equal_rankings_have_the_lowest_possible_p_value(models: int, least: float) -> None:
    names = [f"M{i}" for i in range(models)]
    made = rows({name: [[9, i, i, i]] * 3 for i, name in enumerate(names)})
    found = rankings.correlation(made, {name: 10.0 * i for i, name in enumerate(names)})
    assert found is not None
    assert (found.spearman, found.kendall) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.spearman_interval == pytest.approx((1.0, 1.0))
    assert found.p_value == found.min_p_value == pytest.approx(least)


def test_seeds_that_rank_differently_widen_the_interval() -> None:
    made = rows(
        {
            "A": [[9, 1, 1, 1], [9, 1, 1, 1], [9, 4, 4, 5]],
            "B": [[9, 2, 2, 2], [9, 2, 2, 2], [9, 2, 2, 2]],
            "C": [[9, 3, 3, 3], [9, 3, 3, 3], [9, 3, 3, 3]],
        }
    )
    found = rankings.correlation(made, {"A": 1.0, "B": 2.0, "C": 3.0, "elsewhere": 4.0})
    assert found is not None
    assert found.models == ("A", "B", "C")
    assert found.kendall_interval is not None
    assert found.kendall_interval == pytest.approx(
        (-1 / 3, 1)
    )  # the order of B and C is known, that of A is not
    assert found.spearman_interval == pytest.approx((-0.5, 1))
    assert rankings.correlation(made, {"A": 1.0, "B": 2.0}) is None


def test_interval_of_the_correlation_covers_the_true_one() -> None:
    """A bootstrap over seeds would cover it in only half of these cases."""
    draw = random.Random(3)
    # as the true losses rank them: both correlations are 1
    numbers = {"A": 1.0, "B": 2.0, "C": 3.0, "D": 4.0}
    cases, kept, rho_kept = 200, 0, 0
    for _ in range(cases):
        losses = {
            name: [[99, 99, 99, 20 + 0.3 * i + draw.gauss(0, 1)] for _ in range(3)]
            for i, name in enumerate(numbers)
        }
        found = rankings.correlation(rows(losses), numbers)
        assert found is not None
        assert found.kendall_interval is not None
        assert found.spearman_interval is not None
        kept += found.kendall_interval[1] > 1 - 1e-9
        rho_kept += found.spearman_interval[1] > 1 - 1e-9
    assert min(kept, rho_kept) >= 0.95 * cases


def test_interval_of_known_orders_with_ties_is_the_correlation() -> None:
    made = rows({name: [[9, i, i, i]] * 3 for i, name in enumerate("ABCD")})
    found = rankings.correlation(made, {"A": 1.0, "B": 2.0, "C": 2.0, "D": 0.5})
    assert found is not None
    assert found.kendall_interval == pytest.approx((found.kendall, found.kendall))
    assert found.spearman_interval == pytest.approx((found.spearman, found.spearman))


def test_two_seeds_give_no_interval_of_the_correlation() -> None:
    made = rows({name: [[9, i, i, i]] * 2 for i, name in enumerate("ABC")})
    found = rankings.correlation(made, {"A": 3.0, "B": 2.0, "C": 1.0})
    assert found is not None
    assert found.kendall == pytest.approx(-1.0)
    assert found.kendall_interval is None


def test_failed_runs_of_both_types_of_record_are_kept() -> None:
    good = trained("DiT-S/2", 0, [1.0] * 9)
    bad = trained("FCDM-S", 1, [1.0] * 9)
    crashed = Skipped(case=bad.case, environment=bad.environment, status="crashed", reason="a signal")
    assert study(good, crashed).failed == (crashed,)
    assert learning_curves.all_failed([crashed]) == (crashed,)
