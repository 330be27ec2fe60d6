"""Calls of networks with the inputs in baselines/golden; outputs compared with those of the released code."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from baselines import load
from baselines.load import Golden as Reference
from bench.machine import device
from bench.machine.failures import NotFiniteError
from bench.measure.prepared import engine
from bench.records.base import Environment
from bench.records.golden import Deviation, Golden, GoldenCase
from models.adm import with_low_res
from models.draws import WithoutDraws
from models.layers.rotary import Rotary
from models.registry import FAMILIES, create, family_of, implement, is_plugin, published_task
from models.registry import names as all_names
from models.task import Time
from models.weights import official_name

Inputs = tuple[Tensor, Tensor, Tensor]  # x, t, y

# tolerances; docs/golden.md has the measured errors
FLOAT32 = {"cpu": 1e-5, "cuda": 5e-5}
RELEASE_ERRORS = 3  # the fp32 tolerance is at least this multiple of the release's own error
ROUNDING = {"tf32": 2**13, "fp16": 2**13, "bf16": 2**16}  # unit roundoff, as a multiple of float32's
OTHER = "other inputs"


def tolerance(precision: str, device_type: str, released_error: float) -> float:
    """Largest relative error that rounding explains, given that of the release: float32 against float64."""
    if precision == "fp32":
        return max(FLOAT32[device_type], RELEASE_ERRORS * released_error)
    return ROUNDING[precision] * released_error


def names() -> list[str]:
    """Models with a golden, in the registry's order."""
    known = load.goldens()
    return [name for name in (*all_names(), *all_names("*@*")) if name in known]


def golden_of(name: str) -> str | None:
    """Name of the golden for a model name, without the back end; None without a golden."""
    if is_plugin(name):
        return None
    base = name.partition("@")[0] if name in FAMILIES[family_of(name)].backends else name
    return base if base in load.goldens() else None


def read(name: str) -> Reference:
    model = golden_of(name)
    assert model is not None, name
    return load.golden(model, load.goldens()[model])


def build(name: str, golden: Reference) -> nn.Module:
    """Build a model on the CPU with the weights of `out`, in float32 and eval mode."""
    manifest = load.manifest(str(golden.meta["model"]))
    filled = load.fill(manifest.floating, kept=golden.kept_keys, norms=golden.norms_of_out, rule=golden.rule)
    with torch.device("meta"), WithoutDraws():
        model = create(name, latent_size=golden.x.shape[-1])
    ours = {official_name(model, key): key for key in model.state_dict()}
    # weights without a rule keep the model's initial values, from a second model
    own: dict[str, Tensor] = {}
    if ours.keys() - filled.keys():
        with WithoutDraws():  # only tables keep their values, and none of them is drawn
            own = create(name, latent_size=golden.x.shape[-1]).state_dict()
    weights = own | {ours[key]: torch.from_numpy(value) for key, value in filled.items()}
    model.load_state_dict(weights, assign=True)  # assigned: a copy would double the memory
    for module in model.modules():
        if isinstance(module, Rotary):
            module.recompute()
    return model.eval()


def sharpen(model: nn.Module, golden: Reference) -> None:
    """Change the weights of `out` to those of `out_n` in place: norm weights near 1, trained positions."""
    ours = {official_name(model, key): key for key, _ in model.named_parameters()}
    trained = {key for key in golden.kept_keys if model.get_parameter(ours[key]).requires_grad}
    changed = golden.norm_keys | trained
    shapes = {key: tuple(model.get_parameter(ours[key]).shape) for key in changed}
    with torch.no_grad():
        for key, value in load.fill(shapes, kept=(), norms=golden.norm_keys).items():
            model.get_parameter(ours[key]).copy_(torch.from_numpy(value))


def inputs(golden: Reference) -> Inputs:
    """x, t and y on the CPU; an upsampler's x includes the small image."""
    x, t, y = (torch.from_numpy(values) for values in (golden.x, golden.t, golden.y))
    return (x if golden.low_res is None else with_low_res(x, torch.from_numpy(golden.low_res))), t, y


def other_inputs(x: Tensor, t: Tensor, y: Tensor, time: Time) -> Inputs:
    """Different values with equal shapes, strides and ranges."""
    other = 1 / t if time == "sigma" else (1 if time == "unit" else 999) - t
    return -x, other, y + 1


def error(out: Tensor, reference: Tensor) -> float:
    """rms(out - reference) / rms(reference), in float64."""
    exact = reference.double().cpu()
    return float((out.double().cpu() - exact).norm() / exact.norm())


def measure(case: GoldenCase, environment: Environment) -> Golden:
    """Compare one network in this process. NotFiniteError: an output is not finite."""
    dtype = device.DTYPES[case.precision]
    matmul_tf32, conv_tf32 = device.set_precision(case.precision)
    golden = read(case.model)
    # eval again with the final weights: some networks fold them here
    model = implement(build(case.model, golden), case.impl).to(case.device, dtype).eval()
    x, t, y = (value.to(case.device) for value in inputs(golden))
    x = x.to(dtype)
    if case.channels_last:
        device.lay_channels_last(model)
        x = x.to(memory_format=torch.channels_last)
    static = x.clone(), t.clone(), y.clone()  # input memory of every call, as CUDA graphs require
    call: Callable[[], Tensor] = partial(engine.network(case, model, static), *static)

    def output_of(values: Inputs, name: str) -> Tensor:
        for old, new in zip(static, values, strict=True):
            old.copy_(new)
        with torch.inference_mode():
            out = call()
        if not torch.isfinite(out).all():
            raise NotFiniteError(f"{name} in {case.precision} holds inf or NaN")
        return out

    begin = engine.compiled_so_far()
    output_of((x, t, y), "out")
    first = engine.compiled_so_far()
    if case.cuda_graphs:
        with torch.inference_mode():
            call = engine.captured(call)
    deviations = []
    for name, reference in golden.outputs.items():
        within = tolerance(case.precision, case.device, golden.released_error(name))
        if name == "out_n":
            sharpen(model, golden)
            if case.engine == "aoti":  # holds a copy of the weights
                call = partial(engine.network(case, model, static), *static)
                if case.cuda_graphs:
                    with torch.inference_mode():
                        call = engine.captured(call)
        elif case.engine != "eager" or case.cuda_graphs:
            others = other_inputs(x, t, y, published_task(case.model).time)
            with torch.inference_mode():
                eager = model(*others)
            deviation = error(output_of(others, OTHER), eager)
            deviations.append(Deviation(output=OTHER, error=deviation, tolerance=within))
        deviation = error(output_of((x, t, y), name), torch.from_numpy(reference))
        deviations.append(Deviation(output=name, error=deviation, tolerance=within))
    last = engine.compiled_so_far()
    return Golden(
        case=case,
        environment=environment,
        deviations=tuple(deviations),
        graph_breaks=first.graph_breaks - begin.graph_breaks if case.is_compiled else None,
        recompilations=last.frames - first.frames if case.is_compiled else None,
        matmul_tf32=matmul_tf32,
        conv_tf32=conv_tf32,
    )
