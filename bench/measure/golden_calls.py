"""The calls of the authors' released models that baselines/golden keeps, for our models to repeat."""

import torch
from torch import Tensor, nn

from baselines import load
from baselines.load import Golden
from models.adm import with_low_res
from models.registry import BACKBONES, FAMILIES, create, family_of, is_plugin
from models.weights import official_name


def names() -> list[str]:
    """The models with a golden, in the registry's order."""
    return [name for name in BACKBONES if name in load.goldens()]


def golden_of(name: str) -> str | None:
    """The model whose golden a network must repeat: its own, whatever back end it names; None without one."""
    if is_plugin(name):
        return None
    base = name.partition("@")[0] if name in FAMILIES[family_of(name)].backends else name
    return base if base in load.goldens() else None


def read(name: str) -> Golden:
    """The golden of a printed name; `golden_of` says whether there is one."""
    model = golden_of(name)
    assert model is not None, name
    return load.golden(model, load.goldens()[model])


def build(name: str, golden: Golden) -> nn.Module:
    """Build a model on the CPU with the weights of `out`, in float32 and eval mode."""
    manifest = load.manifest(str(golden.meta["model"]))
    filled = load.fill(manifest.parameters, kept=golden.kept_keys, norms=golden.norms_of_out)
    with torch.device("meta"):
        model = create(name, latent_size=golden.x.shape[-1])
    ours = {official_name(model, key): key for key in model.state_dict()}
    # what the rule leaves out is as a model made it; a large model is not made twice where nothing is
    own = create(name, latent_size=golden.x.shape[-1]).state_dict() if ours.keys() - filled.keys() else {}
    weights = own | {ours[key]: torch.from_numpy(value) for key, value in filled.items()}
    model.load_state_dict(weights, assign=True)  # a copy would double the memory
    return model.eval()


def sharpen(model: nn.Module, golden: Golden) -> None:
    """Change the weights of `out` to those of `out_n`, in place: norms about 1, and trained positions."""
    ours = {official_name(model, key): key for key, _ in model.named_parameters()}
    trained = {key for key in golden.kept_keys if model.get_parameter(ours[key]).requires_grad}
    changed = golden.norm_keys | trained
    shapes = {key: tuple(model.get_parameter(ours[key]).shape) for key in changed}
    with torch.no_grad():
        for key, value in load.fill(shapes, kept=(), norms=golden.norm_keys).items():
            model.get_parameter(ours[key]).copy_(torch.from_numpy(value))


def inputs(golden: Golden) -> tuple[Tensor, Tensor, Tensor]:
    """x, t and y on the CPU; an upsampler's x with the image that it enlarges."""
    x, t, y = (torch.from_numpy(values) for values in (golden.x, golden.t, golden.y))
    return (x if golden.low_res is None else with_low_res(x, torch.from_numpy(golden.low_res))), t, y


def other_inputs(x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Other values of the same shapes and strides, as far within their ranges."""
    last = 1 if t.is_floating_point() else 999
    return -x, last - t, y + 1


def error(out: Tensor, wanted: Tensor) -> float:
    """Root of the mean square of the difference, as a share of that of what is wanted; in float64."""
    exact = wanted.double().cpu()
    return float((out.double().cpu() - exact).norm() / exact.norm())
