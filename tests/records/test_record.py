"""Records: what goes out comes back, and nothing else is taken for one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records import record
from bench.records.record import (
    Ceiling,
    ChannelScores,
    Counted,
    Deviation,
    Environment,
    Evaluation,
    Golden,
    Note,
    Part,
    Probe,
    Profiled,
    Quality,
    Recipe,
    Record,
    Run,
    Sampled,
    Scores,
    Skipped,
    Spectrum,
    StoreError,
    Telemetry,
    Throughput,
    Trained,
    Work,
)

HERE = Environment(
    device="a device",
    device_type="cpu",
    driver="",
    cuda="",
    torch="2.13.0",
    python="3.11.7",
    platform="Linux x86_64",
    threads=2,
    commit="abc",
    code="0123",
    date="2026-11-21T00:00:00Z",
)
RUN = Run(
    question="throughput",
    model="FCDM-S",
    family="FCDM",
    res=256,
    latent_size=32,
    batch=4,
    precision="fp32",
    budget_s=30.0,
    precision_target=0.01,
    environment=HERE,
)
TIMED = Throughput(
    run=RUN,
    times_s=(0.4, 0.5, 0.6, 0.5, 0.5, 0.5),
    device_times_s=(),
    warmup_times_s=(0.9,),
    warmup_stationary=True,
    stopped_by="budget",
    unmet=("at least 10 samples",),
    build_s=1.0,
    compile_s=None,
    matmul_tf32=False,
    conv_tf32=False,
    sustained_times_s=(),
    telemetry=None,
)
COUNTED = Counted(
    model="FCDM-S",
    family="FCDM",
    res=(256, 512),
    latent_size=(32, 64),
    batch=1,
    counter="torch",
    params=10,
    params_trainable=9,
    macs=100,
    train_macs=299,
    train_macs_checkpointed=None,
    not_counted=("gelu",),
    environment=HERE,
)
SKIPPED = Skipped(run=RUN, status="out of memory", reason="asked for 3 TiB")

WORK = Work(
    model="FCDM-S",
    family="FCDM",
    res=256,
    latent_size=32,
    batch=4,
    precision="bf16",
    work="training",
    parts=(
        Part(
            kind="depthwise",
            op="convolution",
            module="encoder.*.depthwise",
            phase="forward",
            calls=2,
            macs=98,
            eager_bytes=40,
            fused_bytes=20,
        ),
    ),
    environment=HERE,
)
CEILING = Ceiling(
    what="matmul", precision="bf16", size=4096, work=2 * 4096**3, times_s=(0.1, 0.2), environment=HERE
)
PROFILED = Profiled(
    run=RUN,
    passes=3,
    seconds=(("depthwise", (0.1, 0.1, 0.13)), ("other", (0.3, 0.2, 0.2))),
    wall_s=(0.4, 0.3, 0.33),
)
RECIPE = Recipe(
    objective="iddpm",
    data="digits",
    data_sha256="0123",
    channels=1,
    classes=10,
    train_images=1437,
    validation_images=360,
    validation_draws=4,
    batch=128,
    steps=100,
    learning_rate=1e-3,
    weight_decay=0.0,
    ema_decays=(0.9999, 0.99),
    flip=False,
    label_dropout=0.1,
    evaluate_every=50,
)
TRAINED = Trained(
    run=RUN,
    recipe=RECIPE,
    seed=0,
    processes=1,
    train_macs=300,
    evaluations=(
        Evaluation(
            step=0,
            seconds=0.0,
            joules=None,
            train_loss=None,
            loss=1.0,
            ema_losses=(1.0, 1.0),
            bin_losses=(1.0, 1.0),
        ),
    ),
    status="ok",
    reason="",
)
PROBE = Probe(
    trained="step 800, seed 0",
    objective="iddpm",
    data="digits",
    data_sha256="0123",
    images=256,
    levels=(0, 999),
)
SPECTRUM = Spectrum(
    run=RUN,
    probe=PROBE,
    radii=(0.0, 0.25),
    counts=(1, 3),
    predicted=((0.5, 0.6), (1.0, 1.1)),
    added=((1.0, 1.0), (1.0, 1.0)),
    error=((0.5, 0.4), (0.0, 0.1)),
)
CHANNELS = ChannelScores(
    run=RUN, probe=PROBE, pattern="middle.*", layers=(Scores(layer="middle.0", scores=(0.0, 0.5)),)
)
SAMPLED = Sampled(
    run=RUN,
    objective="flow",
    sampler="heun",
    steps=50,
    passes=100,
    guidance=1.5,
    guided_channels=3,
    images=8,
    seed=0,
    times_s=(2.0, 4.0),
    build_s=1.0,
    compile_s=None,
    matmul_tf32=False,
    conv_tf32=False,
    telemetry=None,
)
QUALITY = Quality(
    samples="samples.npz sha256:0123",
    reference="digits, train, 4567",
    distance="FID (fid-helper weights)",
    n_samples=50,
    n_reference=60,
    dimensions=2048,
    frechet=12.5,
    kid=(0.1, -0.1, 0.3),
    kid_subset=50,
    precision=0.5,
    recall=0.25,
    neighbours=3,
    compared=10_000,
    environment=HERE,
    kid_subsets=3,
)
NOTE = Note(
    text="the fan was off", about="throughput*", devices=("a device",), author="", date="2026-11-21T00:00:00Z"
)

GOLDEN = Golden(
    run=replace(RUN, question="golden", weights="golden", batch=2),
    deviations=(
        Deviation(output="out", error=1.9e-6, tolerance=1e-5),
        Deviation(output="out_n", error=3.1e-6, tolerance=3e-5),
    ),
    graph_breaks=None,
    recompilations=None,
    matmul_tf32=False,
    conv_tf32=False,
)


@pytest.mark.parametrize(
    "one",
    [
        *(TIMED, COUNTED, SKIPPED, WORK, CEILING, PROFILED, TRAINED, SPECTRUM, CHANNELS, SAMPLED, QUALITY),
        *(NOTE, GOLDEN),
    ],
)
def test_a_record_comes_back_from_its_line_as_it_was(one: Record) -> None:
    line = record.to_line(one)
    assert line.startswith('{"kind": ')
    assert line.count("\n") == 1
    assert record.from_dict(json.loads(line)) == one


def test_images_per_second_and_interval_follow_from_the_samples() -> None:
    assert TIMED.images_per_s == 4 / 0.5
    assert TIMED.images_per_s_interval == (4 / 0.6, 4 / 0.4)
    assert replace(TIMED, times_s=(0.5,)).images_per_s_interval is None
    assert COUNTED.flops == 200


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "rumour"}, "kind 'rumour'; known are"),
        ({"schema": 99}, "schema 99; this version reads 1"),
        ({"macs": "many"}, "expected <class 'int'>, got 'many'"),
        ({"macs": -1}, "counts cannot be negative"),
        ({"extra": 1}, "fields missing or unknown: extra"),
        ({"res": [1, 2, 3]}, "got \\[1, 2, 3\\]"),
    ],
)
def test_a_line_that_is_no_record_is_told_with_its_number(
    change: dict[str, object], told: str, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(record.to_line(COUNTED) + json.dumps({**record.to_dict(COUNTED), **change}) + "\n")
    with pytest.raises(StoreError, match=f"records.jsonl, line 2: not a record of this suite: .*{told}"):
        record.read(path)


def test_a_record_from_before_a_field_was_there_is_read_and_one_without_what_it_needs_is_not() -> None:
    older = json.loads(record.to_line(TIMED))
    here = older["run"]["environment"]
    del here["unit"]
    assert record.from_dict(older) == TIMED
    del here["torch"]
    with pytest.raises(StoreError, match="fields missing or unknown: torch"):
        record.from_dict(older)


@pytest.mark.parametrize("line", ["{", "[]", "null", "3"])
def test_a_line_that_is_no_object_is_told(line: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(StoreError, match="line 1: not a record"):
        record.read(path)


def test_impossible_measurements_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="all above zero"):
        replace(TIMED, times_s=())
    with pytest.raises(ValueError, match="batch: must be at least 1"):
        replace(RUN, batch=0)
    with pytest.raises(ValueError, match="note: needs a text"):
        replace(NOTE, text=" ")


def test_the_energy_of_a_window_is_shared_among_the_images_made_in_it() -> None:
    seen = Telemetry(
        clocks_mhz=(), power_w=(), temperature_c=(), window_s=9.0, energy_j=1200.0, idle_w=None, calls=3
    )
    assert replace(SAMPLED, telemetry=seen).joules_per_image == 1200 / (3 * SAMPLED.run.batch)
    assert replace(SAMPLED, telemetry=replace(seen, energy_j=None)).joules_per_image is None
    before_calls = replace(TIMED, telemetry=replace(seen, calls=None))
    assert before_calls.joules_per_image == 1200 / (len(TIMED.times_s) * RUN.batch)


def test_images_a_second_are_those_of_the_median_chain() -> None:
    assert SAMPLED.images_per_s == 4 / 3.0
    assert SAMPLED.images_per_s_interval is None
    with pytest.raises(ValueError, match="needs at least one time"):
        replace(SAMPLED, times_s=())


@pytest.mark.parametrize(
    "change", [{"kid": (0.1, math.nan, 0.3)}, {"frechet": math.inf}, {"recall": math.nan}]
)
def test_a_distance_that_is_not_finite_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"quality of samples\.npz .*: needs finite distances"):
        replace(QUALITY, **change)


def test_an_older_record_whose_subsets_of_one_image_gave_no_kid_is_read_and_answers_nothing_else() -> None:
    older = replace(QUALITY, kid=(math.nan, math.inf), kid_subset=1, kid_subsets=0)
    read, after = record.parse(record.to_line(older) + record.to_line(QUALITY), "old.jsonl")[0]
    assert isinstance(read, Quality)
    assert not read.has_kid
    assert read.frechet == QUALITY.frechet
    assert after == QUALITY
    assert record.key(read) != record.key(replace(QUALITY, kid_subset=2, kid_subsets=2))


def test_the_shares_of_a_profile_are_those_of_median_passes_and_its_spread_of_whole_ones() -> None:
    assert PROFILED.medians == {"depthwise": 0.1, "other": 0.2}
    assert PROFILED.whole_s == pytest.approx((0.4, 0.3, 0.33))
    assert PROFILED.spread == pytest.approx(0.1 / 0.33)
    assert PROFILED.noise == ("passes differ by 30 %",)
    calm = replace(PROFILED, seconds=(("depthwise", (0.1, 0.1, 0.11)), ("other", (0.2, 0.2, 0.2))))
    assert calm.noise == ()
    with pytest.raises(ValueError, match="2 passes cannot have 3 samples"):
        replace(PROFILED, passes=2)


def test_operators_that_sum_to_more_than_their_pass_are_told_and_other_is_never_below_zero() -> None:
    over = replace(PROFILED, seconds=(("linear", (0.4, 0.4, 0.4)), ("other", (-0.1, -0.1, -0.1))))
    assert over.noise == ("operators sum to 33 % more than the pass",)
    assert over.medians == {"linear": 0.4, "other": 0.0}
    rounded = replace(over, seconds=(("linear", (0.4, 0.4, 0.4)), ("other", (-0.001, -0.001, -0.001))))
    assert rounded.noise == ()


def test_a_profile_from_before_samples_were_kept_is_read_as_the_mean_that_it_is() -> None:
    older = {**record.to_dict(PROFILED), "seconds": [["depthwise", 0.1], ["other", 0.2]], "wall_s": 0.35}
    mean = record.from_dict(older)
    assert isinstance(mean, Profiled)
    assert (mean.has_samples, mean.passes, mean.spread, mean.noise) == (False, 3, None, ())
    assert (mean.medians, mean.median_wall_s) == ({"depthwise": 0.1, "other": 0.2}, 0.35)
    assert record.from_dict(json.loads(record.to_line(mean))) == mean


def test_the_distance_of_samples_is_known_by_what_was_compared_and_not_by_what_came_out() -> None:
    assert record.key(replace(QUALITY, frechet=1.0, kid=(0.0,) * 3, precision=0.0)) == record.key(QUALITY)
    assert record.key(replace(QUALITY, n_samples=49)) != record.key(QUALITY)
    assert record.key(replace(QUALITY, kid=(), kid_subsets=50)) != record.key(QUALITY)
    assert record.key(replace(QUALITY, kid_subsets=0)) == record.key(QUALITY)  # of before it was kept
    assert QUALITY.kid_mean == pytest.approx(0.1)


def test_a_golden_is_reproduced_with_every_output_within_its_tolerance_and_nothing_compiled_again() -> None:
    assert GOLDEN.verdict == "reproduced"
    assert replace(GOLDEN, recompilations=0).verdict == "reproduced"
    assert replace(GOLDEN, recompilations=1).verdict == "recompiled"
    far = replace(GOLDEN.deviations[1], error=3.1e-5)
    assert (
        replace(GOLDEN, deviations=(GOLDEN.deviations[0], far), recompilations=1).verdict == "not reproduced"
    )
    with pytest.raises(ValueError, match="out: an error of nan"):
        replace(GOLDEN.deviations[0], error=float("nan"))
