"""One record of every kind, for tests."""

from dataclasses import asdict
from typing import Any

from bench.records.base import Environment, ModelCase, Skipped
from bench.records.ceiling import Ceiling, CeilingCase
from bench.records.comparison import Comparison, ComparisonCase
from bench.records.counts import CountCase, MacCount
from bench.records.golden import Deviation, Golden, GoldenCase
from bench.records.kernels import (
    CheckedImplementation,
    DepthwiseCase,
    DepthwiseComparison,
    NormCase,
    NormComparison,
    ProductCase,
    ProductComparison,
)
from bench.records.memory import Memory, MemoryCase, MemoryUse
from bench.records.note import Note
from bench.records.operators import OperatorCase, OperatorCost, OperatorCosts
from bench.records.pictures import PictureCase, PictureRun
from bench.records.probes import ChannelCase, ChannelScores, Probe, Scores, Spectrum, SpectrumCase
from bench.records.profile import Profile, ProfileCase
from bench.records.quality import Quality, QualityCase
from bench.records.sampling import SamplingCase, SamplingRun
from bench.records.scaling import ScalingCase, ScalingVisit
from bench.records.telemetry import Telemetry
from bench.records.throughput import Throughput, ThroughputCase
from bench.records.training import Evaluation, Recipe, TrainingCase, TrainingRun

ENVIRONMENT = Environment(
    device="a device",
    device_type="cpu",
    unit="",
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
MODEL: dict[str, Any] = {
    "device": "cpu",
    "model": "FCDM-S",
    "family": "FCDM",
    "res": 256,
    "latent_size": 32,
    "batch": 4,
    "precision": "fp32",
}
PASS: dict[str, Any] = {**MODEL, "work": "inference", "budget_s": 30.0, "precision_target": 0.01}
CASE = ThroughputCase(**PASS)
TIMES: dict[str, Any] = {
    "times_s": (0.4, 0.5, 0.6, 0.5, 0.5, 0.5),
    "device_times_s": (),
    "warmup_times_s": (0.9,),
    "warmup_stationary": True,
    "stopped_by": "budget",
    "unmet": ("at least 10 samples",),
    "build_s": 1.0,
    "compile_s": None,
    "matmul_tf32": False,
    "conv_tf32": False,
    "sustained_times_s": (),
    "telemetry": None,
}
THROUGHPUT = Throughput(case=CASE, environment=ENVIRONMENT, **TIMES)
VISIT = ScalingVisit(case=ScalingCase(**PASS, from_batch=4, visit=1), environment=ENVIRONMENT, **TIMES)
COUNT = MacCount(
    case=CountCase(
        device="meta",
        model="FCDM-S",
        family="FCDM",
        res=(256, 512),
        latent_size=(32, 64),
        batch=1,
        counter="torch",
    ),
    environment=ENVIRONMENT,
    params=10,
    params_trainable=9,
    macs=100,
    train_macs=299,
    train_macs_checkpointed=None,
    not_counted=("gelu",),
    remarks=(),
)
SKIPPED = Skipped(case=CASE, environment=ENVIRONMENT, status="out of memory", reason="asked for 3 TiB")
OPERATORS = OperatorCosts(
    case=OperatorCase(
        device="meta",
        model="FCDM-S",
        family="FCDM",
        res=256,
        latent_size=32,
        batch=4,
        precision="bf16",
        work="training",
    ),
    environment=ENVIRONMENT,
    parts=(
        OperatorCost(
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
)
CEILING = Ceiling(
    case=CeilingCase(device="cpu", what="matmul", precision="bf16"),
    environment=ENVIRONMENT,
    size=4096,
    work=2 * 4096**3,
    times_s=(0.1, 0.2),
)
PROFILE = Profile(
    case=ProfileCase(**MODEL, by="kind"),
    environment=ENVIRONMENT,
    seconds=(("depthwise", (0.1, 0.1, 0.13)), ("other", (0.3, 0.2, 0.2))),
    wall_s=(0.4, 0.3, 0.33),
)
ROUNDS: dict[str, Any] = {
    "order": (0, 1, 1, 0),
    "visits_s": (0.2, 0.1, 0.1, 0.2),
    "calls": (1, 1),
    "clocks_mhz": (),
    "warmup_times_s": ((0.3,), (0.2,)),
    "warmup_stationary": (True, True),
    "margin": 0.02,
    "stopped_by": "budget",
    "unmet": ("ten rounds",),
}
COMPARISON = Comparison(
    case=ComparisonCase(
        device="cpu",
        arms=(ModelCase(**MODEL), ModelCase(**{**MODEL, "model": "DiT-S/2", "family": "DiT"})),
        budget_s=60.0,
        precision_target=0.02,
    ),
    environment=ENVIRONMENT,
    build_s=(1.0, 1.0),
    compile_s=(None, None),
    matmul_tf32=False,
    conv_tf32=False,
    **ROUNDS,
)
DEPTHWISE = DepthwiseComparison(
    case=DepthwiseCase(
        **MODEL,
        operation="conv",
        kernel=7,
        channels=128,
        image_size=32,
        calls_per_pass=2,
        budget_s=10.0,
        precision_target=0.02,
    ),
    environment=ENVIRONMENT,
    implementations=(
        CheckedImplementation(name="torch", ran="aten::mkldnn", status="ok", reason="", error=1e-7),
        CheckedImplementation(name="compiled", ran="inductor", status="ok", reason="", error=1e-7),
        CheckedImplementation(name="triton", ran="", status="not here", reason="needs CUDA", error=None),
    ),
    inputs=2,
    **ROUNDS,
)
PRODUCT = ProductComparison(
    case=ProductCase(
        **MODEL,
        operation="gelu-product",
        channels=128,
        out_channels=384,
        image_size=32,
        calls_per_pass=4,
        budget_s=10.0,
        precision_target=0.02,
    ),
    environment=ENVIRONMENT,
    implementations=DEPTHWISE.implementations,
    inputs=2,
    **ROUNDS,
)
NORM = NormComparison(
    case=NormCase(
        **MODEL,
        operation="norm-gelu",
        channels=96,
        groups=24,
        image_size=32,
        calls_per_pass=24,
        budget_s=10.0,
        precision_target=0.02,
    ),
    environment=ENVIRONMENT,
    implementations=DEPTHWISE.implementations,
    inputs=2,
    **ROUNDS,
)
USE = MemoryUse(
    passes_peak_bytes=300,
    passes_peak_phase="forward",
    passes_gradients_bytes=0,
    update_peak_bytes=None,
    parameters_bytes=100,
    gradients_bytes=0,
    optimizer_bytes=0,
    ema_bytes=0,
    reserved_bytes=None,
    process_bytes=None,
)
MEMORY = Memory(
    case=MemoryCase(**{**MODEL, "device": "meta"}, work="inference", limit_bytes=None),
    environment=ENVIRONMENT,
    use=USE,
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
TRAINING = TrainingRun(
    case=TrainingCase(**MODEL, recipe=RECIPE, seed=0, processes=1),
    environment=ENVIRONMENT,
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
    case=SpectrumCase(**MODEL, probe=PROBE),
    environment=ENVIRONMENT,
    radii=(0.0, 0.25),
    counts=(1, 3),
    predicted=((0.5, 0.6), (1.0, 1.1)),
    added=((1.0, 1.0), (1.0, 1.0)),
    error=((0.5, 0.4), (0.0, 0.1)),
)
CHANNELS = ChannelScores(
    case=ChannelCase(**MODEL, probe=PROBE, pattern="middle.*"),
    environment=ENVIRONMENT,
    layers=(Scores(layer="middle.0", scores=(0.0, 0.5)),),
)
SAMPLING = SamplingRun(
    case=SamplingCase(
        **MODEL,
        objective="flow",
        sampler="heun",
        steps=50,
        guidance=1.5,
        guided_channels=3,
        images=8,
        seed=0,
        classes=(1, 2),
    ),
    environment=ENVIRONMENT,
    passes=100,
    times_s=(2.0, 4.0),
    build_s=1.0,
    compile_s=None,
    matmul_tf32=False,
    conv_tf32=False,
    telemetry=None,
)
PICTURE = PictureRun(
    case=PictureCase(**asdict(SAMPLING.case), autoencoder="sd-f8"),
    environment=ENVIRONMENT,
    passes=2,
    times_s=(4.0, 5.0),
    build_s=1.0,
    compile_s=None,
    matmul_tf32=False,
    conv_tf32=False,
    telemetry=None,
    noise_s=(0.25, 0.25),
    passes_s=((0.5, 1.0), (1.0, 1.0)),
    decoder_s=(2.0, 2.5),
    decoder_params=49_490_199,
    decoder_macs=310_000_000_000,
    diffusers="0.42.1",
)
QUALITY = Quality(
    case=QualityCase(
        device="cpu",
        samples="samples.npz sha256:0123",
        made="",
        reference="digits, train, 4567",
        distance="FID (fid-helper weights)",
        n_samples=50,
        n_reference=60,
        kid_subset=50,
        kid_subsets=3,
        neighbours=3,
        compared=10_000,
    ),
    environment=ENVIRONMENT,
    dimensions=2048,
    frechet=12.5,
    kid=(0.1, -0.1, 0.3),
    precision=0.5,
    recall=0.25,
)
NOTE = Note(
    text="the fan was off", about="throughput*", devices=("a device",), author="", date="2026-11-21T00:00:00Z"
)

GOLDEN = Golden(
    case=GoldenCase(**{**MODEL, "batch": 2, "weights": "golden"}),
    environment=ENVIRONMENT,
    deviations=(
        Deviation(output="out", error=1.9e-6, tolerance=1e-5),
        Deviation(output="out_n", error=3.1e-6, tolerance=3e-5),
    ),
    graph_breaks=None,
    recompilations=None,
    matmul_tf32=False,
    conv_tf32=False,
)
TELEMETRY = Telemetry(
    clocks_mhz=(),
    power_w=(),
    temperature_c=(),
    window_s=9.0,
    energy_j=1200.0,
    idle_w=None,
    calls=3,
    held_back=(),
)
RECORDS = (
    *(THROUGHPUT, VISIT, COUNT, SKIPPED, OPERATORS, CEILING, PROFILE, COMPARISON, DEPTHWISE, PRODUCT, NORM),
    *(MEMORY, TRAINING, SPECTRUM, CHANNELS, SAMPLING, PICTURE, QUALITY, GOLDEN),
)
