"""Loss curves: known answers, intervals that cover, rankings by hand."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.analysis import learning_curves
from bench.analysis.learning_curves import Estimate, Study
from bench.records.record import Evaluation, Trained
from bench.stats import intervals
from tests.records.test_record import RECIPE as A_RECIPE
from tests.records.test_record import RUN

RECIPE = replace(A_RECIPE, train_images=1500, validation_images=297, batch=64, steps=400)
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
) -> Trained:
    """A run whose loss is given at each evaluation; the averages' are 1 and 2 above it."""
    return Trained(
        run=replace(
            RUN,
            question="convergence",
            model=model,
            family=model.partition("-")[0],
            environment=replace(RUN.environment, date=date),
        ),
        recipe=RECIPE,
        seed=seed,
        processes=1,
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


def study(*runs: Trained) -> Study:
    (made,) = learning_curves.studies(runs)
    return made


def power(step: float, speed: float = 1.0, offset: float = 0.0) -> float:
    """A loss that falls by the logarithm of the steps: one that learns k times faster is ln(k) lower."""
    return 3.0 + offset - math.log(max(step * speed, 1.0))


def faster(k: float, seeds: int = 3, wobble: float = 0.0, **more: float) -> Study:
    """DiT, and FCDM that needs k times fewer steps for everything."""
    draw = random.Random(1)
    runs = []
    for seed in range(seeds):
        offset, own = 0.5 * seed, draw.gauss(0, wobble) if wobble else 0.0
        runs.append(trained("DiT-S/2", seed, [power(s, 1, offset) for s in STEPS]))
        arm = [power(s, k, offset + own) if s else power(0, 1, offset) for s in STEPS]
        runs.append(trained("FCDM-S", seed, arm, **more))
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
def test_students_t_is_that_of_the_printed_tables(freedom: int, confidence: float, printed: float) -> None:
    assert intervals.student_t(freedom, confidence) == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_over_seeds_covers_the_true_mean_in_95_of_100_cases(seeds: int) -> None:
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
    found = learning_curves.difference(faster(2), "FCDM-S")  # seeds lie 0.5 apart, the arms ln(2) in each
    assert found is not None
    assert found.place == 400
    assert found.difference.values == pytest.approx([-math.log(2)] * 3)
    assert found.difference.verdict == "lower"
    assert statistics.stdev(found.losses) == pytest.approx(0.5)


def test_an_arm_as_good_as_the_reference_is_not_told_apart() -> None:
    found = learning_curves.difference(faster(1, wobble=0.1), "FCDM-S")
    assert found is not None
    assert found.difference.verdict == "not told apart"


@pytest.mark.parametrize("axis", ["steps", "images", "flops", "seconds"])
def test_a_known_speed_up_is_found_on_every_axis(axis: learning_curves.Axis) -> None:
    """The arm needs 2.5 times fewer steps, each of half the FLOPs and three times the seconds."""
    made = faster(2.5, train_macs=500_000, s_per_step=0.3)
    found = learning_curves.reach(made, "FCDM-S", axis)
    wanted = {"steps": 2.5, "images": 2.5, "flops": 5.0, "seconds": 2.5 / 3}[axis]
    assert found is not None
    assert found.ratio is not None
    assert found.ratio == pytest.approx(wanted, rel=1e-6)
    assert found.interval == pytest.approx((wanted, wanted), rel=1e-6)


def test_equal_work_and_equal_time_are_read_where_both_arms_have_been() -> None:
    made = faster(2.5, train_macs=500_000, s_per_step=0.3)
    work = learning_curves.difference(made, "FCDM-S", "flops")
    time = learning_curves.difference(made, "FCDM-S", "seconds")
    assert work is not None
    assert time is not None
    assert work.place == 2 * 500_000 * 400 * 64  # the arm's last: DiT has done half its own by then
    assert work.difference.mean == pytest.approx(-math.log(2.5 * 2))
    assert time.place == pytest.approx(40.0)  # DiT's last
    assert time.difference.mean == pytest.approx(-math.log(2.5 / 3), rel=1e-3)


def test_joules_are_compared_where_they_were_read_and_nowhere_else() -> None:
    losses = [power(step) for step in STEPS]
    without = study(trained("DiT-S/2", 0, losses), trained("FCDM-S", 0, losses, joules=True))
    assert learning_curves.difference(without, "FCDM-S", "joules") is None
    assert learning_curves.reach(without, "FCDM-S", "joules") is None
    assert learning_curves.mean_curve(without, "DiT-S/2", "joules") == ()
    assert learning_curves.mean_curve(without, "FCDM-S", "joules")[-1].place == 2000


def test_joules_that_come_after_some_seconds_are_read_from_there_and_from_zero_at_the_start() -> None:
    losses = [power(step) for step in STEPS]
    late = trained("DiT-S/2", 0, losses, joules=True)
    unread = [replace(at, joules=None) if at.step < 200 else at for at in late.evaluations]
    points = learning_curves.curve(replace(late, evaluations=tuple(unread)), "joules")
    assert [place for place, _ in points] == [0, 1000, 1250, 1500, 1750, 2000]


def test_a_loss_that_one_seed_never_reaches_gives_no_ratio_but_a_bound() -> None:
    slow = [power(step, 0.5) if step else power(0) for step in STEPS]
    fine = [power(step, 2.0) if step else power(0) for step in STEPS]
    dit = [power(step) for step in STEPS]
    made = study(
        *(trained("DiT-S/2", seed, dit) for seed in range(3)),
        *(trained("DiC-S", seed, slow if seed == 1 else fine) for seed in range(3)),
    )
    found = learning_curves.reach(made, "DiC-S")
    assert found is not None
    assert found.ratios == (pytest.approx(2.0), None, pytest.approx(2.0))
    assert (found.reached, found.ratio, found.interval) == (2, None, None)
    assert found.bounds[1] == pytest.approx(1.0)
    swapped = learning_curves.reach(made, "DiT-S/2", reference="DiC-S")
    assert swapped is not None
    assert swapped.ratios[1] == pytest.approx(2.0)


def test_a_reference_that_gets_worse_is_held_to_its_lowest_loss() -> None:
    made = study(
        trained("DiT-S/2", 0, [3, 2, 1, 2], steps=(0, 100, 200, 400)),
        trained("FCDM-S", 0, [3, 1, 0.5, 0.5], steps=(0, 100, 200, 400)),
    )
    found = learning_curves.reach(made, "FCDM-S")
    assert found is not None
    assert found.ratio == pytest.approx(2.0)


def test_a_curve_is_read_over_the_logarithm_of_its_axis_and_never_beyond_its_ends() -> None:
    points = ((0.0, 4.0), (10.0, 3.0), (1000.0, 1.0))
    assert learning_curves.loss_at(points, 5.0) == pytest.approx(3.5)
    assert learning_curves.loss_at(points, 100.0) == pytest.approx(2.0)
    assert learning_curves.loss_at(points, 1001.0) is None
    assert learning_curves.reached_at(points, 2.0) == pytest.approx(100.0)
    assert learning_curves.reached_at(points, 3.5) == pytest.approx(5.0)
    assert learning_curves.reached_at(points, 0.5) is None


def test_losses_of_averaged_weights_are_read_by_their_place_in_the_recipe() -> None:
    made = faster(2)
    assert learning_curves.final_loss(made, "DiT-S/2", ema=1).mean == pytest.approx(
        learning_curves.final_loss(made, "DiT-S/2").mean + 2
    )


def test_differences_by_range_of_timesteps_keep_their_order() -> None:
    made = study(
        *(trained("DiT-S/2", seed, [1.0] * 9, bins=(0.0, 1.0, 2.0)) for seed in range(3)),
        *(trained("FCDM-S", seed, [1.0] * 9, bins=(0.5, 1.0, 1.0)) for seed in range(3)),
    )
    found = learning_curves.bin_differences(made, "FCDM-S")
    assert [bin_.difference.mean for bin_ in found] == [0.5, 0.0, -1.0]
    assert [bin_.percent and bin_.percent.mean for bin_ in found] == pytest.approx([50, 0, -100 / 3])


def in_bins(table: dict[str, list[float]]) -> Study:
    """model -> loss of each seed in a single range of timesteps."""
    return study(
        *(
            trained(model, seed, [1.0] * 9, bins=(loss - 1,))
            for model, losses in table.items()
            for seed, loss in enumerate(losses)
        )
    )


def test_no_interval_in_per_cent_reaches_below_minus_100_and_reversed_arms_give_the_reverse() -> None:
    losses = {"DiT-S/2": [0.004, 0.005, 0.006], "FCDM-S": [0.006, 0.007, 0.02]}
    (found,) = learning_curves.bin_differences(in_bins(losses), "FCDM-S")
    (back,) = learning_curves.bin_differences(in_bins(losses), "DiT-S/2", reference="FCDM-S")
    assert found.percent is not None
    assert back.percent is not None
    assert found.percent.interval is not None
    assert back.percent.interval is not None
    low, high = found.percent.interval
    assert -100 < low < found.percent.mean < high
    assert (1 + low / 100) * (1 + back.percent.interval[1] / 100) == pytest.approx(1)
    assert (1 + found.percent.mean / 100) * (1 + back.percent.mean / 100) == pytest.approx(1)


def test_a_loss_that_is_not_above_zero_has_a_difference_and_none_in_per_cent() -> None:
    made = in_bins({"DiT-S/2": [0.5, 0.5, 0.5], "FCDM-S": [0.25, -0.25, 0.25]})
    (found,) = learning_curves.bin_differences(made, "FCDM-S")
    assert found.percent is None
    assert found.difference.values == pytest.approx((-0.25, -0.75, -0.25))


def test_arms_of_another_recipe_or_device_are_another_study() -> None:
    here = trained("DiT-S/2", 0, [1.0] * 9)
    there = replace(here, recipe=replace(RECIPE, learning_rate=1e-4))
    assert len(learning_curves.studies([here, there])) == 2


def test_the_newest_record_of_a_seed_counts_and_a_failed_one_is_told() -> None:
    old = trained("DiT-S/2", 0, [1.0] * 9)
    new = trained("DiT-S/2", 0, [2.0] * 9, date="2026-11-22T00:00:00Z")
    bad = trained("FCDM-S", 0, [1.0] * 3, status="not finite")
    made = study(new, old, bad)
    assert learning_curves.final_loss(made, "DiT-S/2").mean == 2.0
    assert made.failed == (bad,)
    assert list(made.arms) == ["DiT-S/2"]


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    made = study(
        *(trained("DiT-S/2", seed, [1.0] * 9) for seed in (0, 1, 2)),
        *(trained("FCDM-S", seed, [0.5 - seed] * 9) for seed in (1, 2, 3)),
    )
    found = learning_curves.difference(made, "FCDM-S")
    assert found is not None
    assert found.difference.values == (-1.5, -2.5)
    assert found.difference.interval is None


def rows(table: dict[str, list[list[float]]]) -> Study:
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
    first, second, third = learning_curves.standings(made)
    assert first.ranking == ("B", "C", "A")  # means 5, 4, 4: B and C tie, B was named first
    assert second.ranking == third.ranking == ("A", "B", "C")
    assert second.agreeing == pytest.approx(2 / 3)
    assert third.agreeing == 1.0
    assert first.tau == pytest.approx(-2 / math.sqrt(2 * 3))  # A-B and A-C turned; B-C tied in one of the two
    assert (second.tau, third.tau) == (1.0, 1.0)
    assert learning_curves.settled((first, second, third)) == 200


def test_correlations_by_hand() -> None:
    assert learning_curves.kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert learning_curves.spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(0.8)
    assert learning_curves.spearman([1, 1, 2], [1, 1, 2]) == pytest.approx(1.0)
    assert (
        learning_curves.kendall([1, 1, 1], [1, 2, 3]) == learning_curves.spearman([1, 1, 1], [1, 2, 3]) == 0.0
    )


@pytest.mark.parametrize(("models", "least"), [(4, 2 / 24), (5, 2 / 120)])
def test_rankings_alike_have_the_least_p_value_that_so_few_models_give(models: int, least: float) -> None:
    names = [f"M{i}" for i in range(models)]
    made = rows({name: [[9, i, i, i]] * 3 for i, name in enumerate(names)})
    found = learning_curves.foretells(made, {name: 10.0 * i for i, name in enumerate(names)})
    assert found is not None
    assert (found.spearman, found.kendall) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.spearman_interval == pytest.approx((1.0, 1.0))
    assert found.p_value == found.least_p_value == pytest.approx(least)


def test_seeds_that_rank_differently_widen_the_interval_of_the_correlation() -> None:
    made = rows(
        {
            "A": [[9, 1, 1, 1], [9, 1, 1, 1], [9, 4, 4, 5]],
            "B": [[9, 2, 2, 2], [9, 2, 2, 2], [9, 2, 2, 2]],
            "C": [[9, 3, 3, 3], [9, 3, 3, 3], [9, 3, 3, 3]],
        }
    )
    found = learning_curves.foretells(made, {"A": 1.0, "B": 2.0, "C": 3.0, "elsewhere": 4.0})
    assert found is not None
    assert found.models == ("A", "B", "C")
    assert found.kendall_interval is not None
    assert found.kendall_interval == pytest.approx((-1 / 3, 1))  # B and C stand, A may lie anywhere
    assert found.spearman_interval == pytest.approx((-0.5, 1))
    assert learning_curves.foretells(made, {"A": 1.0, "B": 2.0}) is None


def test_the_interval_of_the_correlation_covers_the_true_one_however_close_the_arms_lie() -> None:
    """Resampled seeds cover it in half of these cases, losses drawn from a t distribution in two thirds."""
    draw = random.Random(3)
    # as the true losses rank them: both correlations are 1
    numbers = {"A": 1.0, "B": 2.0, "C": 3.0, "D": 4.0}
    cases, kept, rho_kept = 200, 0, 0
    for _ in range(cases):
        losses = {
            name: [[99, 99, 99, 20 + 0.3 * i + draw.gauss(0, 1)] for _ in range(3)]
            for i, name in enumerate(numbers)
        }
        found = learning_curves.foretells(rows(losses), numbers)
        assert found is not None
        assert found.kendall_interval is not None
        assert found.spearman_interval is not None
        kept += found.kendall_interval[1] > 1 - 1e-9
        rho_kept += found.spearman_interval[1] > 1 - 1e-9
    assert min(kept, rho_kept) >= 0.95 * cases


def test_with_ties_in_the_other_ranking_the_interval_of_arms_told_apart_is_their_correlation() -> None:
    made = rows({name: [[9, i, i, i]] * 3 for i, name in enumerate("ABCD")})
    found = learning_curves.foretells(made, {"A": 1.0, "B": 2.0, "C": 2.0, "D": 0.5})
    assert found is not None
    assert found.kendall_interval == pytest.approx((found.kendall, found.kendall))
    assert found.spearman_interval == pytest.approx((found.spearman, found.spearman))


def test_two_seeds_leave_the_correlation_without_an_interval() -> None:
    made = rows({name: [[9, i, i, i]] * 2 for i, name in enumerate("ABC")})
    found = learning_curves.foretells(made, {"A": 3.0, "B": 2.0, "C": 1.0})
    assert found is not None
    assert found.kendall == pytest.approx(-1.0)
    assert found.kendall_interval is None
