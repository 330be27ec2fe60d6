"""The papers' claims: where they come from, what is judged of them and how, and their page."""

import importlib
import random
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines import load
from baselines.load import Claim
from bench.analysis.memory import memory_claims
from bench.analysis.memory.memory_fit import GIB
from bench.records.base import Environment, ModelCase, Record
from bench.records.comparison import Comparison, ComparisonCase
from bench.records.memory import Memory, MemoryCase
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.records.throughput import PassCase, Throughput, ThroughputCase
from bench.stats import power_law
from models.registry import find
from reports.__main__ import main
from reports.claims import page as claims
from reports.claims import steps, timed, verdicts
from reports.claims.commands import commands
from reports.claims.verdicts import FAILS, HOLDS, NEARLY, OPEN, UNCOUNTED, UNMEASURED, Finding
from reports.naming import family
from tests.records.examples import (
    COMPARISON,
    ENVIRONMENT,
    MEMORY,
    OPERATORS,
    THROUGHPUT,
    TIMES,
    TRAINING,
    USE,
)
from tests.reports.test_reports import append, columns, counted

CLAIMS = {claim.id: claim for claim in load.claims()}
H200 = replace(ENVIRONMENT, device="NVIDIA H200", device_type="cuda", driver="570.0", cuda="13.0", threads=16)
BASE_S = 0.040  # of a DiT's pass of 64 images at 256 px


def fields(model: str, *, res: int = 256, precision: str = "bf16", batch: int = 64) -> dict[str, Any]:
    """The fields of a ModelCase."""
    return {
        "device": "cuda",
        "model": model,
        "family": family(model),
        "res": res,
        "latent_size": res // 8,
        "batch": batch,
        "precision": precision,
    }


def case(
    model: str,
    *,
    work: str = "inference",
    checkpointing: bool = False,
    **changes: Any,  # noqa: ANN401
) -> ThroughputCase:
    budget = {"budget_s": 30.0, "precision_target": 0.01}
    return ThroughputCase(**fields(model, **changes), **budget, work=work, checkpointing=checkpointing)


def samples(
    of: PassCase, seconds: float, *, noise: float = 0.005, n: int = 31, seed: int = 0
) -> tuple[float, ...]:
    draw = random.Random(f"{seed} {of.model} {of.res}")
    return tuple(seconds * (1 + draw.gauss(0, noise)) for _ in range(n))


def passes(
    of: ThroughputCase,
    seconds: float,
    *,
    noise: float = 0.005,
    n: int = 31,
    seed: int = 0,
    environment: Environment = H200,
) -> Throughput:
    times = samples(of, seconds, noise=noise, n=n, seed=seed)
    return replace(THROUGHPUT, case=of, environment=environment, times_s=times)


def apart(
    speeds: dict[str, float],
    *,
    res: int = 256,
    precision: str = "bf16",
    noise: float = 0.005,
    visits: int = 1,
) -> list[Record]:
    """Models timed separately, by their speed as a multiple of a DiT's at 256 px."""
    return [
        passes(case(model, res=res, precision=precision), BASE_S / speed, noise=noise, seed=visit)
        for visit in range(visits)
        for model, speed in speeds.items()
    ]


def interleaved(
    speeds: dict[str, float], *, res: int = 256, precision: str = "bf16", processes: int = 4
) -> Comparison:
    """Rounds of all models in turn in some processes, the first model the reference."""
    rounds = 5 * processes
    draw, arms = random.Random(res), range(len(speeds))
    order = [arm for _ in range(rounds) for arm in (*arms, *reversed(arms))]
    seconds = [BASE_S / speed for speed in speeds.values()]
    count = len(speeds)
    arms_of = tuple(ModelCase(**fields(model, res=res, precision=precision)) for model in speeds)
    return replace(
        COMPARISON,
        case=ComparisonCase(device="cuda", arms=arms_of, budget_s=60.0, precision_target=0.01),
        environment=H200,
        order=tuple(order),
        visits_s=tuple(seconds[arm] * (1 + draw.gauss(0, 0.002)) for arm in order),
        calls=(1,) * count,
        warmup_times_s=((0.1,),) * count,
        warmup_stationary=(True,) * count,
        margin=0.01,
        process_starts=tuple(range(5, rounds, 5)),
        stopped_by="precision",
        unmet=(),
        build_s=(1.0,) * count,
        compile_s=(None,) * count,
    )


def memory(
    *, batch: int, gib: float, predicted: bool, checkpointing: bool = True, precision: str = "fp32"
) -> Memory:
    use = replace(
        USE,
        passes_peak_bytes=int(gib * GIB),
        passes_peak_phase="backward",
        parameters_bytes=GIB,
        gradients_bytes=GIB,
        optimizer_bytes=2 * GIB,
        ema_bytes=GIB,
    )
    sizes = fields("FCDM-XL", batch=batch, precision=precision) | {"device": "meta" if predicted else "cuda"}
    of = MemoryCase(**sizes, work="training", checkpointing=checkpointing, limit_bytes=None)
    return Memory(case=of, environment=H200, use=use)


def only(records: Sequence[Record], claim: str) -> Finding:
    (found,) = [finding for finding in verdicts.findings(records) if finding.claim.id == claim]
    return found


# claims


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_names_known_backbones_and_a_number(claim: Claim) -> None:
    assert claim.source
    assert claim.claim
    for name in filter(None, (claim.model, claim.reference)):
        find(name.replace("*", "XL"))
    if claim.value is not None:
        assert claim.bounds is not None
        assert claim.bounds[0] <= claim.value <= claim.bounds[1]
    assert (claim.value is None) == (claim.quantity == "training memory")
    assert set(claim.sizes) <= {256, 512}


def test_every_claim_has_a_name_of_its_own() -> None:
    assert len(CLAIMS) == len(load.claims())


def test_a_stated_number_is_that_of_its_cells() -> None:
    rounded = [claim for claim in CLAIMS.values() if claim.stated.value and claim.cells]
    assert len(rounded) == 7
    for claim in rounded:
        least, most = verdicts.band(claim)
        assert claim.by_cells is not None
        assert least <= claim.by_cells <= most


def test_a_speeds_conditions_are_those_of_its_table() -> None:
    tables = {table.source: table for table in load.tables()}
    of_one = [c for c in CLAIMS.values() if c.quantity == "speed"]
    of_tables = [(c, c.source.rpartition("; ")[2]) for c in of_one]
    of_tables = [(claim, source) for claim, source in of_tables if source in tables]
    assert len(of_tables) > 30
    for claim, source in of_tables:
        table = tables[source]
        assert (claim.batch, claim.precision, claim.device) == (table.batch, table.precision, table.device)
        assert claim.res_px == (table.res_px or "256")


def test_claims_of_memory_are_those_that_bench_memory_tests() -> None:
    here = {claim.id: claim for claim in CLAIMS.values() if claim.quantity == "training memory"}
    assert set(here) == {claim.id for claim in memory_claims.CLAIMS}
    for claim in memory_claims.CLAIMS:
        said = here[claim.id]
        assert (said.model, said.sizes, int(said.batch.split()[0])) == (
            claim.model,
            (claim.res,),
            claim.batch,
        )


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_every_claim_names_a_command_that_its_parser_takes(claim: Claim) -> None:
    texts = commands([claim])
    if claim.quantity in ("training steps", "FID"):
        assert not texts
        return
    python, flag, module, *arguments = shlex.split(*texts)
    assert (python, flag) == ("python", "-m")
    importlib.import_module(module).parser().parse_args(arguments)


def test_steps_a_second_are_predicted_from_operator_costs() -> None:
    claim = CLAIMS["fcdm-steps-per-s-256"]
    key = {"model": "FCDM-XL", "batch": 64, "precision": "fp32", "work": "training"}
    part = replace(OPERATORS.parts[0], macs=10**15)
    costs = replace(OPERATORS, case=replace(OPERATORS.case, **key), parts=(part,))
    memory = replace(MEMORY, case=replace(MEMORY.case, **key))
    found = steps.predicted(claim, [costs, memory])
    value, low, high = map(float, re.findall(r"[\d.]+", found.text)[:3])
    assert low < value < high <= 82.6e12 / (2 * 2e15)  # twice, as the block is recomputed
    assert " in fp32, " in found.text
    assert found.text.endswith(" in torch-default (RTX 4090)")
    assert [record.case.kind for record in found.records] == ["operators"]
    assert steps.predicted(claim, []).text == "no: operator costs of this step are not recorded"


def test_a_cell_is_named_by_its_row_and_other_cells_of_the_row() -> None:
    assert CLAIMS["dico-params-dit-s-skip"].value == 34.3  # the third of three rows called DiT
    assert CLAIMS["lightningdit-epochs-dit-xl"].value == 1400 / 64
    with pytest.raises(ValueError, match="dico_table03:params_m:DiT:flat: no such cell"):
        _ = replace(CLAIMS["dico-params-dit-s"], cells="dico_table03:params_m:DiT:flat").value


# verdicts


def test_parameters_round_to_the_printed_millions() -> None:
    def judged(params: int) -> str:
        record = counted("DiC-H")
        return only(
            [replace(record, params=2 * params, params_trainable=params)], "dico-params-dic-h"
        ).verdict

    assert [judged(n) for n in (1_049_000_000, 960_000_000, 900_000_000)] == [HOLDS, HOLDS, FAILS]


def test_losses_of_small_trainings_stand_beside_a_fid() -> None:
    (evaluation,) = TRAINING.evaluations
    records = [
        replace(
            TRAINING,
            case=replace(TRAINING.case, model=name, family=family(name), seed=seed),
            evaluations=(evaluation, replace(evaluation, step=100, loss=loss + seed / 10)),
        )
        for seed in range(3)
        for name, loss in (("DiT-Ti/2", 0.9), ("FCDM-Ti", 0.8 + seed / 1000), ("FCDM-S", 0.1))
    ]
    found = only(records, "fcdm-fid-fcdm-xl-dit-xl")
    assert found.verdict == UNMEASURED
    assert found.note.startswith("FCDM-Ti - DiT-Ti/2: -0.099 (95 % ")
    assert "3 seeds" in found.note
    assert "losses of small trainings here" in columns(claims.page(records).text, "## Quality after training")


def test_without_records_nothing_is_judged() -> None:
    assert {finding.verdict for finding in verdicts.findings([])} == {UNMEASURED, UNCOUNTED}


def test_a_ratio_whose_interval_lies_near_the_published_holds() -> None:
    found = only([interleaved({"DiT-XL/2": 1, "FCDM-XL": 3.3})], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.measured is not None
    assert found.measured.value == pytest.approx(3.3, rel=0.01)
    assert found.verdict == HOLDS


def test_one_process_judges_no_claim() -> None:
    found = only([interleaved({"DiT-XL/2": 1, "FCDM-XL": 1.6}, processes=1)], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.measured is not None
    assert (found.verdict, found.measured.refused) == (OPEN, timed.ONE_PROCESS)


def test_a_ratio_whose_interval_lies_away_does_not_hold() -> None:
    records = [interleaved({"DiT-XL/2": 1, "FCDM-XL": 1.6})]
    assert only(records, "fcdm-speed-fcdm-xl-dit-xl-256").verdict == FAILS
    text = claims.page(records).text
    row = columns(text, "## Speed")
    at = row["claim"].index("images/s of FCDM-XL as a multiple of DiT-XL/2's")
    assert row["verdict"][at].startswith("**does not hold**: 0.47")
    assert row["setting (published)"][at] == "NVIDIA H200 (not stated), bf16 (not stated), batch 64"


def test_an_interval_across_an_end_gives_no_verdict() -> None:
    noisy = apart({"DiT-XL/2": 1, "FCDM-XL": 3.39 * 0.9}, noise=0.1, visits=2)
    found = only(noisy, "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.measured is not None
    assert (found.measured.refused, found.verdict) == ("", OPEN)
    few = [passes(case(model), BASE_S, n=3) for model in ("DiT-XL/2", "FCDM-XL")]
    assert only([*few, *scaled({"DiT-S/2": 4})], "fcdm-speed-fcdm-xl-dit-xl-256").verdict == OPEN


def test_what_was_not_measured_is_told_with_its_command() -> None:
    found = only(apart({"DiT-XL/2": 1, "FCDM-XL": 3}), "fcdm-speed-fcdm-xl-dit-xl-512")
    assert found.verdict == UNMEASURED
    (command,) = commands([found.claim])
    assert command.startswith("python -m bench.versus DiT-XL/2 FCDM-XL --res 512 --batch 64")
    for_all = command.replace("FCDM-XL", "FCDM-XL DiC-XL DiCo-XL")
    assert for_all in claims.page([]).text


def test_interleaved_rounds_decide_before_separate_timings() -> None:
    records = [*apart({"DiT-XL/2": 1, "FCDM-XL": 2}), interleaved({"DiT-XL/2": 1, "FCDM-XL": 3.4})]
    found = only(records, "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.measured is not None
    assert (found.measured.how, found.verdict) == (timed.INTERLEAVED, HOLDS)
    assert [other.how for other in found.others] == [timed.SEPARATE]


def test_two_arms_are_compared_whichever_was_the_reference() -> None:
    record = interleaved({"DiT-XL/2": 1, "FCDM-XL": 3.4, "DiCo-XL": 2.0})
    found = only([record], "fcdm-speed-fcdm-xl-dico-xl-256")
    assert found.measured is not None
    assert found.measured.value == pytest.approx(1.7, rel=0.01)
    assert found.measured.interval is not None
    assert found.measured.interval[0] < 1.7 * 1.002
    assert found.measured.interval[1] > 1.7 * 0.998


def test_two_models_are_compared_through_one_they_share() -> None:
    apart_s = [interleaved({"DiT-XL/2": 1, "DiCo-XL": 2.0}), interleaved({"U-ViT-H/2": 0.7, "DiT-XL/2": 1})]
    found = only(apart_s, "dico-speed-dico-xl-u-vit-h-256")
    assert found.measured is not None
    assert (found.verdict, found.measured.how) == (HOLDS, timed.CHAINED)
    assert found.measured.value == pytest.approx(2 / 0.7, rel=0.01)
    other = interleaved({"U-ViT-H/2": 0.7, "DiT-XL/2": 1}, precision="fp32")
    assert only([apart_s[0], other], "dico-speed-dico-xl-u-vit-h-256").verdict == UNMEASURED


def test_a_published_precision_decides_before_the_method() -> None:
    records = [
        interleaved({"DiT-XL/2": 1, "DiCo-XL": 1.9}, precision="bf16"),
        *apart({"DiT-XL/2": 1, "DiCo-XL": 2.7}, precision="fp32", visits=2),
    ]
    found = only(records, "dico-speed-dico-xl-dit-xl-256")
    assert found.measured is not None
    assert (found.measured.setting.precision, found.verdict) == ("fp32", HOLDS)
    other = columns(claims.page(records).text, "## Speed")["other settings"]
    assert any(cell.startswith("1.90 (bf16, batch 64, interleaved)") for cell in other)


def test_steady_clocks_are_a_remark_and_drifting_ones_refuse() -> None:
    compared = interleaved({"DiT-XL/2": 1, "FCDM-XL": 3.39})
    capped = replace(compared, clocks_mhz=tuple(1980.0 if arm else 1800.0 for arm in compared.order))
    found = only([capped], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.verdict == HOLDS
    page = claims.page([capped])
    remark = "clock +10.0 %, 1980 MHz against 1800 MHz of the reference"
    (stated,) = (cell for cell in columns(page.text, "## Speed")["setting (published)"] if "clock" in cell)
    assert stated.endswith(f", {remark}")
    assert found.measured is not None
    assert f"NVIDIA H200 (not stated), bf16 (not stated), batch 64, {remark}" in page.summary
    drifting = tuple(1980.0 - (1 - arm) * i for i, arm in enumerate(compared.order))
    found = only([replace(compared, clocks_mhz=drifting)], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.verdict == OPEN
    assert found.measured is not None
    assert "clocks drifted apart" in found.measured.refused


def test_runs_that_disagree_are_judged_by_their_spread() -> None:
    def at(hour: int, speed: float, **changed: str) -> Comparison:
        made = interleaved({"DiT-XL/2": 1, "FCDM-XL": speed})
        then = {"date": f"2026-01-01T{hour:02}:00:00Z", "code": f"{hour:012}", **changed}
        return replace(made, environment=replace(made.environment, **then))

    agreeing = at(1, 3.39)
    assert only([agreeing], "fcdm-speed-fcdm-xl-dit-xl-256").verdict == HOLDS
    found = only([agreeing, at(3, 2.6), at(2, 3.3)], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.verdict == OPEN
    assert found.measured is not None
    assert found.measured.value == pytest.approx((3.39 * 2.6 * 3.3) ** (1 / 3), rel=0.01)
    assert found.measured.interval is not None
    assert found.measured.interval[0] < 2.6
    assert found.measured.remark == "3 runs gave 2.6 to 3.39"
    assert found.others == ()
    # another torch is another case, and the newest is judged
    other = only([agreeing, at(3, 2.6, torch="2.99")], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert (other.verdict, len(other.others)) == (FAILS, 1)


def test_visits_that_differ_by_a_fifth_judge_nothing() -> None:
    quiet = apart({"DiT-XL/2": 1, "FCDM-XL": 3.39})
    again = [
        passes(case(model), BASE_S / speed, seed=1) for model, speed in (("DiT-XL/2", 0.5), ("FCDM-XL", 2))
    ]
    found = only([*quiet, *again], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.verdict == OPEN
    assert found.measured is not None
    assert "visits of one case differ by" in found.measured.refused


def test_single_visits_take_the_drift_of_the_devices_study() -> None:
    once = apart({"DiT-XL/2": 1, "FCDM-XL": 3.39})
    calm = scaled({"DiT-S/2": 4, "FCDM-S": 4})
    slower = [
        replace(one, times_s=tuple(1.1 * t for t in one.times_s)) if one.case.visit == 2 else one
        for one in scaled({"FCDM-S": 4})
    ]
    shaky = [*scaled({"DiT-S/2": 4}), *slower]
    quiet, beside = (
        only([*once, *study], "fcdm-speed-fcdm-xl-dit-xl-256").measured for study in (calm, shaky)
    )
    assert quiet is not None
    assert beside is not None
    assert quiet.interval is not None
    assert beside.interval is not None
    assert beside.interval[1] > 1.05 * quiet.interval[1]
    verdicts_of = [only([*once, *study], "fcdm-speed-fcdm-xl-dit-xl-256").verdict for study in (calm, shaky)]
    assert verdicts_of == [HOLDS, OPEN]


def test_single_visits_alone_tell_nothing() -> None:
    records = apart({"DiT-XL/2": 1, "FCDM-XL": 3.39})
    found = only(records, "fcdm-speed-fcdm-xl-dit-xl-256")
    assert found.measured is not None
    assert (found.measured.interval, found.verdict) == (None, OPEN)
    text = claims.page(records).text
    assert "**cannot tell**: one visit of each case does not show how much visits differ" in text


def test_two_equal_costs_have_a_ratio_of_one_within_its_interval() -> None:
    points = [power_law.Point(side=1, visits=((1.0, 1.1, 0.9, 1.0, 1.05, 0.95),)) for _ in range(2)]
    drift = power_law.Drift(sd=0.01, freedom=4)
    ratio, interval = power_law.cost_ratio(*points, drift)
    assert ratio == 1
    assert interval is not None
    assert interval[0] < 1 < interval[1]
    assert power_law.cost_ratio(*points, None) == (1, None)
    assert power_law.cost_ratio(points[0], power_law.counted(1, 2.0), drift) == (0.5, None)


def scaled(
    growths: dict[str, float],
    *,
    work: str = "inference",
    precision: str = "bf16",
    environment: Environment = H200,
) -> list[ScalingVisit]:
    """Two visits of bench.scaling at 256 and 512 px."""
    found = []
    for visit in (1, 2):
        for model, growth in growths.items():
            for res in (256, 512):
                of = ScalingCase(
                    **fields(model, res=res, precision=precision),
                    work=work,
                    budget_s=30.0,
                    precision_target=0.01,
                    from_batch=64,
                    visit=visit,
                )
                times = samples(of, BASE_S * (growth if res == 512 else 1), seed=visit)
                found.append(ScalingVisit(case=of, environment=environment, **{**TIMES, "times_s": times}))
    return found


def test_slow_downs_of_families_and_relative_ones_are_judged() -> None:
    records = scaled({"DiT-XL/2": 4.2, "FCDM-XL": 3.9})
    assert only(records, "fcdm-slowdown-of-dit").verdict == HOLDS
    assert only(records, "fcdm-slowdown-of-fcdm").verdict == FAILS
    relative = only(records, "fcdm-slowdown-dit-over-fcdm")
    assert (relative.model, relative.reference, relative.verdict) == ("DiT-XL/2", "FCDM-XL", FAILS)
    assert relative.measured is not None
    assert relative.measured.value == pytest.approx(4.2 / 3.9, rel=0.01)
    assert relative.measured.how == timed.STUDY


def on_cpu(record: Comparison) -> Comparison:
    return replace(record, environment=replace(H200, device="Some CPU", device_type="cpu"))


def test_comparisons_at_two_sizes_judge_slow_downs() -> None:
    small = interleaved({"DiT-XL/2": 1, "FCDM-XL": 1.2})
    large = interleaved({"DiT-XL/2": 1 / 4.2, "FCDM-XL": 1.2 / 4}, res=512)
    assert only([small, large], "fcdm-slowdown-of-dit").verdict == HOLDS
    assert only([small, large], "fcdm-slowdown-of-fcdm").verdict == FAILS
    relative = only([small, large], "fcdm-slowdown-dit-over-fcdm").measured
    assert relative is not None
    assert (relative.how, relative.value) == (timed.INTERLEAVED, pytest.approx(1.05, rel=0.01))
    # hours of a shared CPU widen the slow-down of one model and cancel in that of two
    found = [
        only([on_cpu(small), on_cpu(large)], f"fcdm-slowdown-{of}") for of in ("of-dit", "dit-over-fcdm")
    ]
    assert [one.verdict for one in found] == [OPEN, FAILS]
    alone = [interleaved({"DiT-XL/2": 1, "FCDM-XL": 1.2}, processes=1), large]
    assert only(alone, "fcdm-slowdown-of-fcdm").verdict == OPEN


def test_a_setting_without_a_verdict_leaves_it_to_the_next() -> None:
    farther = interleaved({"DiT-XL/2": 1, "FCDM-XL": 3.39})
    arms = tuple(replace(arm, batch=4) for arm in farther.case.arms)
    farther = replace(farther, case=replace(farther.case, arms=arms))
    nearer = interleaved({"DiT-XL/2": 1, "FCDM-XL": 1.6}, processes=1)
    found = only([nearer, farther], "fcdm-speed-fcdm-xl-dit-xl-256")
    assert (found.verdict, [one.setting.batch for one in found.others]) == (HOLDS, [64])


def test_the_page_says_what_a_cpu_cannot_answer() -> None:
    heading = "## Claims that a CPU can judge"
    assert heading not in claims.page([interleaved({"DiT-XL/2": 1, "DiCo-XL": 1.6})]).text
    text = claims.page([on_cpu(interleaved({"DiT-XL/2": 1, "DiCo-XL": 1.6}, precision="fp32"))]).text
    table = columns(text, heading)
    assert table["does not hold"] == ["-", "2", "-", "-", "-"]
    assert int(table["not measured on a CPU"][1]) + 2 == int(table["claims"][1])
    assert "2 claims of speed are judged on CPUs alone: Some CPU. The papers measured them on" in text
    assert "A100, batch 64 (DiCo)" in text
    assert "2 claims cannot be judged on a CPU: whether a training step fits a GPU" in text


def test_a_newer_count_on_meta_is_not_the_measured_device() -> None:
    record = on_cpu(interleaved({"DiT-XL/2": 1, "DiCo-XL": 1.6}, precision="fp32"))
    found = only([record], "dico-speed-dico-xl-dit-xl-256").measured
    assert found is not None
    meta = replace(
        OPERATORS, environment=replace(OPERATORS.environment, device="meta", date="2999-01-01T00:00:00+00:00")
    )
    assert replace(found, records=(*found.records, meta)).environment.device == "Some CPU"


def test_a_slow_down_whose_batch_shrank_names_both_batches() -> None:
    shrunk = [
        replace(one, case=replace(one.case, batch=4)) if one.case.res == 512 else one
        for one in scaled({"DiT-XL/2": 4.2 / 16})
    ]
    found = only(shrunk, "fcdm-slowdown-of-dit").measured
    assert found is not None
    assert found.value == pytest.approx(4.2, rel=0.01)
    assert (found.setting.batch, found.setting.switches) == (64, ("down to batch 4",))


def test_two_sizes_timed_apart_stand_in_for_a_study() -> None:
    records = [*apart({"FCDM-XL": 1}, visits=2), *apart({"FCDM-XL": 1 / 2.1}, res=512, visits=2)]
    found = only(records, "fcdm-slowdown-fcdm-xl")
    assert found.measured is not None
    assert (found.measured.how, found.verdict) == (timed.SEPARATE, HOLDS)


@pytest.mark.parametrize(
    ("gmacs", "verdict"), [(64.58, HOLDS), (66.0, NEARLY), (90.0, FAILS)], ids=["digits", "nearly", "not"]
)
def test_a_count_holds_to_the_printed_digits(gmacs: float, verdict: str) -> None:
    records = [counted(macs=int(gmacs * 1e9)), counted("DiT-XL/2", macs=118_654_755_072)]
    found = only(records, "fcdm-macs-fcdm-xl-dit-xl-256")
    assert found.verdict == verdict
    assert found.measured is None


def test_counts_of_two_counters_are_not_divided() -> None:
    records = [counted(counter="torch"), counted("DiT-XL/2", counter="torchprofile-meta")]
    assert only(records, "fcdm-macs-fcdm-xl-dit-xl-256").verdict == UNCOUNTED


def test_a_family_is_judged_at_every_size_that_was_counted() -> None:
    records = [counted(f"{name}-{size}{patch}", macs=macs) for size in ("S", "XL")
               for name, patch, macs in (("FCDM", "", 50), ("DiT", "/2", 100))]  # fmt: skip
    found = [one for one in verdicts.findings(records) if one.claim.id == "fcdm-macs-half"]
    assert [(one.model, one.reference, one.verdict) for one in found] == [
        ("FCDM-S", "DiT-S/2", HOLDS),
        ("FCDM-XL", "DiT-XL/2", HOLDS),
    ]


def test_the_summary_lists_the_judged_claims_by_verdict() -> None:
    macs = {"FCDM-S": 50, "DiT-S/2": 100, "FCDM-L": 60, "DiT-L/2": 100, "FCDM-XL": 54, "DiT-XL/2": 100}
    table = columns(
        claims.page([counted(name, macs=one) for name, one in macs.items()]).summary, "## The papers' claims"
    )
    half = [at for at, claim in enumerate(table["claim"]) if "half the MACs" in claim]
    assert [table["verdict"][at] for at in half] == [
        "**does not hold**: 1.20 times the published value",
        "**holds**",
        "**holds**",
    ]
    assert table["verdict"] == sorted(table["verdict"], key=lambda text: text.startswith("**holds"))


def test_a_prediction_is_shown_and_decides_nothing() -> None:
    records = [memory(batch=64, gib=18, predicted=True), memory(batch=256, gib=60, predicted=True)]
    assert only(records, "fcdm-memory-24").verdict == UNMEASURED
    assert only(records, "fcdm-memory-40").verdict == UNMEASURED
    table = columns(claims.page(records).text, "## Memory of training")
    assert table["predicted, not measured"] == [
        "probably does not fit with checkpointing (fp32 60.0 of 39.0 GiB, margin x 0.65)",
        "probably fits with checkpointing (fp32 19.0 of 23.0 GiB, margin x 1.21)",  # with four GPUs' buckets
    ]
    assert "measured" not in table  # a column of blanks is left out


def test_measured_memory_overrules_a_prediction() -> None:
    records = [
        memory(batch=256, gib=60, predicted=True),
        memory(batch=256, gib=30, predicted=False),
        memory(batch=256, gib=100, predicted=False, checkpointing=False),
    ]
    found = only(records, "fcdm-memory-40")
    assert found.verdict == HOLDS
    assert [one.case.checkpointing for one in found.other_fits] == [False]
    table = columns(claims.page(records).text, "## Memory of training")
    assert table["measured"][0] == "fp32, with checkpointing: 30.0 of 39.0 GiB, fits"


def test_the_setting_with_the_fewest_switches_decides() -> None:
    compared = interleaved({"DiT-XL/2": 1, "FCDM-XL": 3.39})

    def changed(**settings: Any) -> Comparison:  # noqa: ANN401
        arms = tuple(replace(arm, **settings) for arm in compared.case.arms)
        return replace(compared, case=replace(compared.case, arms=arms))

    compiled = changed(engine="compile", channels_last=True)
    small, larger = changed(batch=4), changed(batch=8)
    found = only([compiled, small, larger], "fcdm-speed-fcdm-xl-dit-xl-256")
    decided = [one.setting for one in filter(None, (found.measured, *found.others))]
    assert [(one.batch, len(one.switches)) for one in decided] == [(8, 0), (4, 0), (64, 2)]
    (heading,) = (
        c for c in columns(claims.page([compiled]).text, "## Speed")["setting (published)"] if "bf16" in c
    )
    assert heading.endswith(", torch.compile, channels last")


def test_steps_a_second_are_judged_on_their_own_gpu_only() -> None:
    step = case("FCDM-XL", precision="fp32", work="training", checkpointing=True)
    rtx = replace(H200, device="NVIDIA GeForce RTX 4090")
    twice = [passes(step, 1 / 0.9, seed=visit, environment=rtx) for visit in range(2)]
    assert only(twice, "fcdm-steps-per-s-256").verdict == HOLDS
    assert only(twice[:1], "fcdm-steps-per-s-256").verdict == OPEN
    assert only([passes(step, 1 / 0.9)], "fcdm-steps-per-s-256").verdict == UNMEASURED


def test_single_steps_need_a_study_of_training() -> None:
    rtx = replace(H200, device="NVIDIA GeForce RTX 4090")
    step = case("FCDM-XL", precision="fp32", work="training", checkpointing=True)

    def beside(work: str) -> list[Record]:
        studied = scaled({"DiT-S/2": 4, "FCDM-S": 4}, work=work, precision="fp32", environment=rtx)
        return [passes(step, 1 / 0.9, environment=rtx), *studied]

    verdicts_of = [only(beside(w), "fcdm-steps-per-s-256").verdict for w in ("inference", "training")]
    assert verdicts_of == [OPEN, HOLDS]
    said = "twice (the same command with --force), or with a bench.scaling --work training of that device"
    assert said in claims.page(beside("training")).text


# the page


def full() -> list[Record]:
    """As a GPU's sweep would give it, in small."""
    speeds = {"DiT-XL/2": 1.0, "FCDM-XL": 1.4, "DiCo-XL": 1.2, "DiC-XL": 1.6}
    macs = {"DiT-XL/2": 118_654, "FCDM-XL": 64_586, "DiCo-XL": 87_304, "DiC-XL": 116_136}
    return [
        interleaved(speeds),
        *apart(speeds, precision="tf32"),
        *apart({name: speed / 4 for name, speed in speeds.items()}, res=512, precision="tf32"),
        *scaled({"DiT-XL/2": 4.4, "FCDM-XL": 3.9}),
        *(
            counted(name, macs=mega * 10**6, counter=counter)
            for name, mega in macs.items()
            for counter in ("torch", "torchprofile-meta")
        ),
        memory(batch=64, gib=18, predicted=True),
        memory(batch=64, gib=21, predicted=False),
    ]


def test_the_order_of_records_changes_no_byte() -> None:
    records = full()
    one, other = claims.page(records), claims.page([*reversed(records), *records])
    assert one == other
    assert [drawing.picture.name for drawing in one.drawings] == ["claims_nvidia-h200"]


def test_the_report_has_the_verdicts_and_their_plot(tmp_path: Path) -> None:
    append(tmp_path / "a.jsonl", full())
    assert main(["--records", str(tmp_path / "a.jsonl"), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    first = columns(text, "## The papers' claims by verdict")
    assert first["verdict"][0].startswith("**does not hold**")
    page = (tmp_path / claims.FILE).read_text(encoding="utf-8")
    links = set(re.findall(r"\((plots/[\w-]+\.svg)\)", page))
    assert links == {"plots/claims_nvidia-h200.svg"}
    assert all((tmp_path / link).stat().st_size > 1000 for link in links)
