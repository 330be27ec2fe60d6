"""The report's section on training convergence: its tables, verdicts and pictures."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.analysis.learning import learning_curves as curves
from bench.records.base import Record
from bench.records.training import TrainingRun
from reports.figures.learning_curves import written
from reports.figures.plots import ticks
from reports.sections import convergence
from reports.sections.convergence import section
from reports.sections.published_convergence import fids, published_name
from tests.analysis.test_curves import STEPS, power, trained

FOUR = {"FCDM-Ti": 2.0, "DiT-Ti/2": 1.0, "DiCo-Ti": 1.5, "DiC-Ti": 0.5}  # how fast each learns


def study(speeds: dict[str, float] = FOUR, seeds: int = 3, **more: float) -> list[TrainingRun]:
    return [
        trained(
            model,
            seed,
            [5 + power(step, speed if step else 1.0, 0.1 * seed) for step in STEPS],
            bins=[0.0, 1.0, speed],
            **more,
        )
        for model, speed in speeds.items()
        for seed in range(seeds)
    ]


def with_recipe(run: TrainingRun, **changed: object) -> TrainingRun:
    recipe = replace(run.case.recipe, **changed)  # type: ignore[arg-type]
    return replace(run, case=replace(run.case, recipe=recipe))


def text(records: Sequence[Record]) -> str:
    """The section without pictures, which take most of the time."""
    parts = [part for study in convergence.studies(records) for part in convergence.about(study)]
    return "\n\n".join(filter(None, parts))


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The first table after a heading: column -> cells."""
    parts = page[page.index(heading) :].split("\n\n")
    rows = next(part for part in parts if part.startswith("|")).splitlines()
    head, _, *body = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name: [row[i] for row in body] for i, name in enumerate(head)}


@pytest.fixture(scope="module")
def page() -> str:
    return text(study())


def test_section_is_empty_without_records_of_training() -> None:
    assert section([]) == ("", [])


def test_final_losses_have_intervals_and_those_of_averages(page: str) -> None:
    found = table(page, "#### Loss at the end")
    assert found["model"] == ["FCDM-Ti", "DiT-Ti/2", "DiCo-Ti", "DiC-Ti"]
    loss = 8.1 - math.log(400)  # DiT's mean; seeds differ by 0.1: 4.303 x 0.1 / sqrt(3) to either side
    assert found["loss"][1] == f"{loss:.4f}"
    assert found["95 % interval"][1] == f"{loss - 0.2484:.4f} to {loss + 0.2484:.4f}"
    assert found["EMA 0.9999"][1] == f"{loss + 1:.4f}"
    assert found["EMA 0.99"][1] == f"{loss + 2:.4f}"
    assert found["loss - DiT-Ti/2's"][:2] == [f"{-math.log(2):.5f}", "-"]
    assert found["verdict"] == ["lower", "-", "lower", "higher"]
    assert found["training TFLOPs"] == ["0.0512"] * 4


def test_differences_are_at_equal_steps_flops_and_seconds(page: str) -> None:
    found = table(page, "#### At equal cost, compared with DiT-Ti/2")
    gain = f"{-math.log(2):+.4f}"
    assert list(found) == ["model", "at equal steps", "at equal training FLOPs", "at equal seconds"]
    assert found["at equal steps"][0] == f"{gain} [{gain}, {gain}] at 400 steps"
    assert found["at equal seconds"][0].endswith("at 40.0 s")
    assert found["at equal training FLOPs"][0].endswith("at 51.2 GFLOPs")  # 2 x 1e6 MACs x 64 x 400
    assert "lower loss than DiT-Ti/2: FCDM-Ti, DiCo-Ti" in page
    assert "higher loss than DiT-Ti/2: DiC-Ti" in page


def test_joules_have_a_column_where_measured() -> None:
    assert "joules" not in text(study())
    assert "at equal joules" in text(study(joules=True))


def test_unreached_loss_is_shown_with_the_reverse_speed_up(page: str) -> None:
    found = table(page, "#### Speed-up")
    assert found["times fewer steps"] == [
        "2.00 [2.00, 2.00]",
        "1.50 [1.50, 1.50]",
        "not reached (below 1.00)",
    ]
    found = table(page[page.index("#### Speed-up") :], "| model   | the reverse")
    assert found["the reverse, steps"] == ["-", "-", "2.00 [2.00, 2.00]"]


def test_differences_by_timestep_are_in_per_cent(page: str) -> None:
    found = table(page, "#### By timestep")
    assert found["timesteps"] == ["0 to 0.333", "0.333 to 0.667", "0.667 to 1"]
    assert found["DiT-Ti/2's loss"][0] == f"{8.1 - math.log(400):.4f}"
    losses = [8 - math.log(400) + 0.1 * seed for seed in range(3)]
    mean = math.prod((loss - math.log(2)) / loss for loss in losses) ** (1 / 3)
    assert found["FCDM-Ti"][0].startswith(f"{100 * (mean - 1):+.1f} [")


@pytest.mark.usefixtures("blank_figures")
def test_range_with_a_loss_below_zero_is_absolute() -> None:
    records = [
        replace(
            run,
            evaluations=tuple(
                replace(at, bin_losses=(*at.bin_losses[:-1], -0.75 if run.case.model == "DiT-Ti/2" else -0.5))
                for at in run.evaluations
            ),
        )
        for run in study()
    ]
    page, _ = section(records)
    found = table(page, "#### By timestep")
    assert found["FCDM-Ti"][-1] == "+0.2500 [+0.2500, +0.2500] absolute"
    assert "absolute" not in "".join(found["FCDM-Ti"][:-1])


def test_ranking_has_the_step_from_which_it_is_stable(page: str) -> None:
    found = table(page, "#### Rankings")
    assert found["ranking"][-1] == "FCDM-Ti < DiCo-Ti < DiT-Ti/2 < DiC-Ti"
    assert found["seeds with this ranking"][-1] == "100%"
    assert "From step 50 on the ranking equals the last one." in page


def test_four_models_are_too_few_to_predict_the_papers_ranking(page: str) -> None:
    found = table(page, "#### Comparison with the papers")
    assert found["weights"] == ["trained", "EMA 0.9999", "EMA 0.99"]
    # the published order of DiC and DiT is the reverse
    assert found["Kendall's tau"][0] == "+0.67 [+0.67, +0.67]"
    assert found["lowest possible p"][0] == "0.083"
    assert "With 4 models even two equal rankings have p = 0.083" in page


@pytest.mark.parametrize(
    ("order", "answer"),
    [
        (["FCDM-S", "DiCo-S", "DiC-S", "DiG-S/2", "DiT-S/2"], "5 models agree beyond chance (p = 0.017)"),
        (
            ["DiT-S/2", "DiG-S/2", "DiC-S", "DiCo-S", "FCDM-S"],
            "5 models are opposed beyond chance (p = 0.017)",
        ),
        (
            ["FCDM-S", "DiT-S/2", "DiC-S", "DiCo-S", "DiG-S/2"],
            "5 models do not show that one ranking predicts",
        ),
    ],
)
def test_ranking_of_five_models_is_compared_with_the_papers(order: list[str], answer: str) -> None:
    assert answer in text(study({model: 5.0 - i for i, model in enumerate(order)}))


def test_published_fid_is_that_of_the_model_or_its_familys_s() -> None:
    assert [published_name(model) for model in FOUR] == ["FCDM-S", "DiT-S/2", "DiCo-S", "DiC-S"]
    assert published_name("FCDM-B") == "FCDM-B"
    (made,) = curves.studies(study())
    assert fids(made) == {"FCDM-Ti": 48.52, "DiT-Ti/2": 68.4, "DiCo-Ti": 49.97, "DiC-Ti": 58.68}


def test_models_without_published_fid_give_no_answer() -> None:
    page = text(study({"mine:a": 1.0, "mine:b": 2.0}))
    assert "No answer: 0 of the models have a published FID" in page


def test_two_seeds_have_no_interval() -> None:
    page = text(study(seeds=2))
    assert "(n = 2, no interval) at 400 steps" in page
    assert table(page, "#### Loss at the end")["95 % interval"][0] == "-"
    assert "inconclusive" not in page


def test_seconds_that_differ_between_seeds_compare_nothing() -> None:
    slow = trained("DiT-Ti/2", 2, [power(step) + 5 for step in STEPS], s_per_step=0.15)
    quiet = study()
    assert "busy with other work" not in text(quiet)
    page = text([slow if (run.case.model, run.case.seed) == ("DiT-Ti/2", 2) else run for run in quiet])
    assert "seconds of equal work differ between seeds by DiT-Ti/2 50 %" in page
    assert "at equal seconds" in text(quiet)
    assert "at equal seconds" not in page


@pytest.mark.usefixtures("blank_figures")
def test_single_model_has_no_comparison() -> None:
    page, drawings = section(study({"mine:a": 1.0}))
    assert "At equal cost" not in page
    assert "#### Rankings" not in page
    assert [drawing.picture.name for drawing in drawings] == [
        "convergence_digits-iddpm_loss",
        "published_fid_by_step",
    ]


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(
    ("steps", "is_drawn"),
    [((0,), False), ((50,), False), ((25, 75), False), ((0, 25), True)],  # of one run; the others have STEPS
)
def test_a_study_without_curves_says_what_is_missing(steps: tuple[int, ...], is_drawn: bool) -> None:
    short = trained("FCDM-Ti", 1, [3.0, 2.0], steps=steps)
    page, drawings = section([*study({"DiT-Ti/2": 1.0, "FCDM-Ti": 2.0}, seeds=1), short])
    assert "**Without a curve: FCDM-Ti.** A curve needs two evaluations of every run" in page
    assert ("The study has no figure." in page) is not is_drawn
    assert "#### Loss at the end" in page
    assert ["_loss" in one.picture.name for one in drawings] == [True] * is_drawn + [False]
    assert "Without a curve" not in section(study(seeds=1))[0]


def test_failed_run_is_named_with_its_reason() -> None:
    bad = trained("DiC-S", 0, [3.0, 2.0], status="not finite")
    page = text([*study(), bad])
    assert "DiC-S, seed 0: not finite, step 120: the loss is not finite" in page
    assert "DiC-S" not in table(page, "#### Loss at the end")["model"]


@pytest.mark.usefixtures("blank_figures")
def test_configurations_in_which_every_run_failed_are_rows() -> None:
    lost = [
        with_recipe(run, learning_rate=5.0)
        for run in (trained(model, 0, [3.0, 2.0], status="not finite") for model in ("DiC-S", "DiT-S/2"))
    ]
    page, _ = section([*lost, *study()])
    found = table(page, "### Configurations in which every run failed")
    assert found["model"] == ["DiT-S/2", "DiC-S"]
    assert found["learning rate"] == ["5", "5"]
    assert found["failure"][0] == "not finite: step 120: the loss is not finite"
    assert "every run failed" not in section(study())[0]
    assert "every run failed" in section(lost)[0]


def test_studies_of_the_same_data_have_different_files() -> None:
    other = [with_recipe(run, learning_rate=1e-4) for run in study()]
    assert convergence.names(convergence.studies([*study(), *other])) == ["digits-iddpm-1", "digits-iddpm-2"]


def test_order_of_records_does_not_change_the_bytes() -> None:
    page, drawings = section(study())
    again, drawn = section(study()[::-1])
    assert page == again
    assert drawings == drawn
    assert all(f"![{one.picture.title}](plots/{one.picture.name}.svg)" in page for one in drawings)


def test_device_and_software_are_named(page: str) -> None:
    assert (
        "Device a device; 2 CPU threads; fp32; batch 64 in one process; 4 images a pass; torch 2.13.0; "
        "commit abc; 2026-11-21T00:00:00Z." in page
    )


@pytest.mark.parametrize(
    ("low", "high"), [(0.158, 0.161), (0.9, 1.1), (25.0, 300.0), (1e9, 5e15), (0.04, 1.2), (1.0, 1.0001)]
)
def test_ticks_of_a_logarithmic_axis_are_few_and_distinct(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 10
    assert all(low <= tick <= high for tick in found)
    assert len({written(tick) for tick in found}) == len(found)


def test_losses_of_flow_are_by_its_level_of_noise() -> None:
    flow = [with_recipe(run, objective="flow") for run in study()]
    assert next(iter(table(text(flow), "#### By timestep"))) == "1 - t"
    assert next(iter(table(text(study()), "#### By timestep"))) == "timesteps"
