"""One contract over all backbones, and what each family does differently."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from baselines import load
from bench.counting import counters
from bench.counting.dispatch import CountingMode
from models import Task, create, names
from models.contract import build, make_inputs
from models.fcdm import GlobalResponseNorm
from models.layers.conditions import Condition, timestep_features
from models.layers.modulation import ChannelNorm
from models.mpdit import SpectralConv
from models.registry import FAMILIES, family_of, find, printed, published_task
from models.weights import official_name, randomise_zeros
from tests.conftest import NARROW, SMALLEST, UNREAD, ZERO_GRADIENT
from tests.narrow import shallow

BACKBONES, SMALL = names(), names("*-Ti*")
RELEASED = [name for name in BACKBONES if load.has_manifest(name)]

# families that start as DiT does, with modulations at zero
DIT_LINE = ("FCDM-S", "DiT-S/2", "DiCo-S", "DiC-S", "U-DiT-S", "MDT-S/2", "MDTv2-S/2")

# released families whose last layer starts at zero, and whose input reaches the output only through it
AT_ZERO = [
    name
    for name in SMALLEST
    if name not in [NARROW[family] for family in ("U-ViT", "DiS", "DiM", "DiMSUM")]
    and (name in NARROW.values() or FAMILIES[family_of(name)].official)
    and published_task(name).prediction != "denoised"
]

# families that drop labels in training: ADM has no null class, elsewhere the data set or the trainer drops
BY_TRAINER = ("FlowDCN", "EDM2", "HDiT")
DROPPING = [
    name
    for name in SMALLEST
    if name not in (NARROW["ADM"], NARROW["ADM-U"], NARROW["U-ViT"]) and family_of(name) not in BY_TRAINER
]


def meta(name: str, **task: object) -> nn.Module:
    return build(name, replace(published_task(name), **task)).eval()


def meta_output(name: str, task: Task, batch: int = 2) -> Tensor:
    """The output of a network on the meta device, where repeated operators cost nothing."""
    with torch.no_grad(), CountingMode({}):
        return build(name, task).eval()(*make_inputs(task, batch, "meta"))


def small_inputs(name: str, batch: int = 2, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of a backbone for 16 x 16 latents."""
    return make_inputs(replace(published_task(name), latent_size=16), batch, device)


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_equal_the_release_in_name_shape_and_number(name: str) -> None:
    manifest = load.manifest(name)
    model = meta(name, latent_size=manifest.latent)
    ours = {official_name(model, key): tuple(value.shape) for key, value in model.state_dict().items()}
    assert ours == dict(manifest.shapes)
    assert sum(p.numel() for p in model.parameters()) == manifest.params_total
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest.params_trainable


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), ((8, 12), 1)])
def test_sizes_of_ours_take_the_images_of_digits_and_of_cifar(
    name: str, size: int | tuple[int, int], channels: int
) -> None:
    task = Task(latent_size=size, in_channels=channels, num_classes=10)
    assert meta_output(name, task).shape == (2, 2 * channels, task.height, task.width)


def test_sizes_of_ours_have_similar_parameters_and_macs() -> None:
    task = Task(latent_size=8, in_channels=1, num_classes=10)
    params, macs = {}, {}
    for name in SMALL:
        model = meta(name, **vars(task))
        params[name] = sum(p.numel() for p in model.parameters())
        macs[name] = counters.count_forward(model, task).macs
    for sizes in (params, macs):
        close = [size for name, size in sizes.items() if not name.startswith(("DiG", "DDT"))]
        assert max(close) < 1.15 * min(close)
        assert max(sizes.values()) < 1.2 * min(sizes.values())


def test_sizes_of_ours_are_listed_by_their_own_pattern_only() -> None:
    assert names("*-Ti*") == [name for family in FAMILIES.values() for name in family.small]
    assert names("FCDM-T*") == ["FCDM-Ti"]
    assert names("dit-?i/2") == ["DiT-Ti/2"]
    for pattern in ("*", "FCDM-*", "DiT-*", "*T*", "*@*"):
        assert names(pattern)
        assert not {*SMALL} & {*names(pattern)}
    assert names("FCDM-X") == []
    assert printed("dit-ti/2") == "DiT-Ti/2"
    assert family_of("DiCo-Ti") == "DiCo"
    with pytest.raises(ValueError, match="did you mean FCDM-Ti"):
        find("FDCM-Ti")


def test_output_without_variance_has_the_channels_of_the_input(smallest: str) -> None:
    task = Task(latent_size=8, in_channels=3, num_classes=10, learn_sigma=False)
    assert meta_output(smallest, task, batch=1).shape == (1, 3, 8, 8)


@pytest.fixture(scope="module", params=SMALLEST)
def filled(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """The smallest model of a network for 16 x 16 latents, with no layer left at zero."""
    model = create(request.param, latent_size=16).eval()
    randomise_zeros(model)
    with torch.no_grad():  # initial weights of unit variance, as published, amplify rounding errors
        for module in model.modules():
            if isinstance(module, SpectralConv):
                module.real /= module.real[0].numel() ** 0.5
                module.imaginary /= module.imaginary[0].numel() ** 0.5
    return request.param, model


def assert_near(out: Tensor, wanted: Tensor) -> None:
    """Equal to 1e-4 of the norm: MPDiT's initial weights amplify rounding errors of 1e-7 to 4e-5."""
    assert (out - wanted).norm() < 1e-4 * wanted.norm()


def test_rows_do_not_depend_on_their_batch(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    x, t, y = small_inputs(name, batch=3)
    with torch.no_grad():
        together = model(x, t, y)
        alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
    assert_near(together, alone)


def test_output_depends_on_image_timestep_and_label(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    x, t, y = small_inputs(name, batch=1)
    with torch.no_grad():
        base = model(x, t, y)
        for other in (model(x + 1, t, y), model(x, t + 1, y), model(x, t, (y + 1) % 1000)):
            assert (other - base).abs().max() > 1e-4


def test_evaluation_is_deterministic(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    args = small_inputs(name)
    with torch.no_grad():
        assert torch.equal(model(*args), model(*args))


def test_every_trainable_parameter_gets_a_gradient(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    x, t, y = small_inputs(name)
    model.zero_grad()
    model(x, t, y).square().mean().backward()
    without = [
        n
        for n, p in model.named_parameters()
        if p.requires_grad
        and not UNREAD.search(n)
        and (p.grad is None or not (p.grad.any() or ZERO_GRADIENT.search(n)))
    ]
    assert without == []
    model.zero_grad()


def test_state_dict_survives_a_round_trip(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    other = create(name, latent_size=16).eval()
    other.load_state_dict(model.state_dict())
    args = small_inputs(name)
    with torch.no_grad():
        assert torch.equal(model(*args), other(*args))


def test_bfloat16_follows_float32(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    if name == NARROW["MPDiTv2"]:
        pytest.skip("its time embedding amplifies rounding; MPDiT-Ti is compared")
    x, t, y = small_inputs(name)
    half = deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        exact, rounded = model(x, t, y), half(x.bfloat16(), t, y).float()
    # bf16 keeps 8 bits, 4e-3 a rounding; some tens of rounded layers in a row add up to a few per cent
    assert (rounded - exact).norm() / exact.norm() < 0.05


def test_channels_last_gives_the_same_output(filled: tuple[str, nn.Module]) -> None:
    name, model = filled
    x, t, y = small_inputs(name)
    other = deepcopy(model).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert_near(other(x.to(memory_format=torch.channels_last), t, y), model(x, t, y))


# ADM is a part of ADM-U; the others are compiled, with their gradients, in test_ssm.py and test_dig.py
COMPILED_ELSEWHERE = [NARROW[family] for family in ("ADM", "DiS", "DiM", "DiMSUM")]


@pytest.mark.parametrize(
    "name", [name for name in SMALLEST if name not in COMPILED_ELSEWHERE and not name.startswith("DiG")]
)
def test_it_compiles_as_one_graph(name: str) -> None:
    with torch.device("meta"):
        model = shallow(name)(replace(published_task(name), latent_size=16)).eval()
    args = small_inputs(name, device="meta")
    with torch.no_grad():
        out = torch.compile(model, fullgraph=True, backend="eager")(*args)
    assert out.shape[-2:] == (16, 16)
    torch.compiler.reset()


@pytest.mark.parametrize("smallest", AT_ZERO)
def test_a_fresh_model_outputs_zeros(smallest: str) -> None:
    args = small_inputs(smallest)
    with torch.no_grad():
        assert not create(smallest, latent_size=16).eval()(*args).any()


@pytest.fixture(scope="module", params=DIT_LINE)
def fresh(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A fresh model of published width with few blocks."""
    return request.param, shallow(request.param)(Task(16))


def test_blocks_start_as_the_identity_except_in_dic(fresh: tuple[str, nn.Module]) -> None:
    name, model = fresh
    modulations = [
        module.linear.weight
        for path, module in model.named_modules()
        if path.endswith("modulation") and not path.startswith("head")
    ]
    assert modulations
    zero = [not weight.any() for weight in modulations]
    assert not any(zero) if name.startswith("DiC-") else all(zero)


def test_initial_weights_have_the_spread_that_the_papers_give(fresh: tuple[str, nn.Module]) -> None:
    name, model = fresh
    stem = model.stem if hasattr(model, "stem") else model.embed
    fan_in, fan_out = stem.weight[0].numel(), stem.weight.shape[0]
    if name.startswith("U-DiT"):
        fan_out *= stem.weight[0, 0].numel()  # its release takes the stem for a convolution, as torch does
    bound = math.sqrt(6 / (fan_in + fan_out))  # of the weight as a matrix
    assert 0.9 * bound < stem.weight.abs().max() <= bound
    assert not stem.bias.any()
    for condition in (m for m in model.modules() if isinstance(m, Condition)):
        for weight in (condition.labels.weight, condition.time1.weight, condition.time2.weight):
            assert weight.std().item() == pytest.approx(0.02, rel=0.02)


@cache
def labels_seen(name: str, batch: int = 400) -> list[Tensor]:
    """The labels that reach each label table in one training pass."""
    model = create(name, latent_size=8).train()
    seen: list[Tensor] = []
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]

    def see(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])
        if len(seen) == len(tables):
            raise AllSeen

    for table in tables:
        table.register_forward_pre_hook(see)
    y = torch.full((batch,), 7)
    with torch.no_grad(), pytest.raises(AllSeen):
        model(torch.randn(batch, 4, 8, 8), torch.zeros(batch), y)
    return seen


class AllSeen(Exception):  # noqa: N818 - not an error: ends a pass whose rest is not needed
    """Every label table has been looked up."""


@pytest.mark.parametrize("smallest", DROPPING)
def test_training_drops_a_tenth_of_the_labels(smallest: str) -> None:
    for labels in labels_seen(smallest):
        assert set(labels.tolist()) == {7, 1000}
        assert 0.05 < (labels == 1000).float().mean() < 0.16  # 400 draws: 0.1 +- 4 standard errors


@pytest.mark.parametrize("smallest", DROPPING)
def test_labels_drop_at_all_levels_except_in_fcdm_and_u_dit(smallest: str) -> None:
    first, *others = labels_seen(smallest)
    together = all(torch.equal(first, other) for other in others)
    assert together != smallest.startswith(("FCDM", NARROW["U-DiT"]))


def test_timestep_features_are_float32_cosines_then_sines() -> None:
    features = timestep_features(torch.tensor([10], dtype=torch.float64))
    assert features.dtype == torch.float32
    assert features.shape == (1, 256)
    assert features[0, 0].item() == pytest.approx(math.cos(10))
    assert features[0, 128].item() == pytest.approx(math.sin(10))
    assert features[0, 64].item() == pytest.approx(math.cos(10 / 100), abs=1e-6)


def test_layer_norms_add_1e_6_to_the_variance() -> None:
    x = 1e-3 * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)  # variance 1e-6: eps matters as much
    assert ChannelNorm()(x)[0, 0].item() == pytest.approx(math.sqrt(0.5), rel=1e-4)
    norms = [module for module in create("tests.narrow:dit").modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    for norm in norms:
        flat = norm(1e-3 * torch.tensor([1.0, -1.0]).repeat(24))
        assert flat[0].item() == pytest.approx(math.sqrt(0.5), rel=1e-4)


def test_dic_group_norms_add_1e_5_to_the_variance() -> None:
    norms = [module for module in shallow("DiC-S")(Task()).modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    for norm in norms:
        assert norm.num_groups == min(32, norm.num_channels // 4)
        x = math.sqrt(1e-5) * torch.tensor([1.0, -1.0]).repeat(norm.num_channels // 2).view(1, -1, 1, 1)
        assert norm(x)[0, 0].item() == pytest.approx(math.sqrt(0.5), rel=1e-4)


def test_global_response_norm_adds_1e_6_to_the_mean_norm() -> None:
    norm = GlobalResponseNorm(2)
    with torch.no_grad():
        norm.gamma.fill_(1)
        h = 1e-6 * torch.ones(1, 2, 1, 1)  # each norm 1e-6, their mean 1e-6, so the share is a half
        assert norm(h)[0, 0].item() == pytest.approx(1.5e-6, rel=1e-4)


def test_names_are_found_in_any_case_and_by_pattern() -> None:
    assert printed("dit-xl/2") == "DiT-XL/2"
    assert names("fcdm-*") == ["FCDM-S", "FCDM-B", "FCDM-L", "FCDM-XL"]
    assert len(names()) == len(BACKBONES) == sum(len(family.variants) for family in FAMILIES.values())
    assert family_of("DiC-H") == "DiC"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FDCM-XL", "did you mean FCDM-XL"),
        ("nothing like it", "known families are"),
        ("no_such_module:factory", "cannot import 'no_such_module'"),
        ("tests.tiny:Missing", "has no callable 'Missing'"),
    ],
)
def test_unknown_names_are_refused_with_suggestions(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(name)


@pytest.mark.parametrize("size", [0, (32, 0), -4])
def test_a_latent_without_pixels_is_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="latent_size: must be at least 1"):
        Task(size)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("FCDM-S", 30),
        ("DiT-S/8", 36),
        ("DiC-S", (32, 30)),
        ("U-DiT-S", 36),
        ("U-ViT-L/4", 30),
        ("MDT-S/2", 31),
        ("ADM-512", 96),
        ("LDM-4", 36),
    ],
)
def test_a_latent_that_a_network_cannot_divide_is_refused(name: str, size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"latent_size: must be a multiple of .* would work"):
        create(name, latent_size=size)
