"""The fast implementation: outputs, gradients and weights of the reference."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.measure import golden_calls
from models import create
from models.contract import build, make_inputs
from models.registry import published_task
from models.weights import randomise_zeros

MODELS = ["FCDM-Ti", "DiCo-Ti", "DiC-Ti", "DiT-Ti/2"]
Inputs = tuple[Tensor, Tensor, Tensor]


def pair(name: str, side: int | tuple[int, int] = (12, 20)) -> tuple[nn.Module, nn.Module, Inputs]:
    """A reference, its fast implementation with the same weights, and inputs."""
    task = replace(published_task(name), latent_size=side)
    torch.manual_seed(0)
    reference = build(name, task, "cpu").eval()
    randomise_zeros(reference)
    fast = build(name, task, "cpu", impl="fast").eval()
    fast.load_state_dict(reference.state_dict())
    return reference, fast, make_inputs(task, 3, "cpu")


def error(out: Tensor, exact: Tensor) -> float:
    return golden_calls.error(out.detach(), exact.detach())


@pytest.mark.parametrize("name", [*MODELS, "tests.narrow:udit", "tests.narrow:adm"])
def test_fast_gives_the_output_of_the_reference(name: str) -> None:
    reference, fast, (x, t, y) = pair(name, (12, 20) if name in MODELS else 16)
    assert [*fast.state_dict()] == [*reference.state_dict()]
    with torch.inference_mode():
        assert error(fast(x, t, y), reference(x, t, y)) < 5e-6
        assert error(fast(x[:1], t[:1], y[:1]), reference(x[:1], t[:1], y[:1])) < 5e-6


@pytest.mark.parametrize("name", MODELS)
def test_fast_rounds_in_bf16_as_the_reference_does(name: str) -> None:
    reference, fast, (x, t, y) = pair(name)
    with torch.no_grad():
        exact = reference.double()(x.double(), t, y)
        own = error(reference.bfloat16()(x.bfloat16(), t, y), exact)
        assert error(fast.bfloat16()(x.bfloat16(), t, y), exact) < min(2e-2, 1.5 * own)


@pytest.mark.parametrize("name", MODELS)
def test_fast_runs_under_autocast(name: str) -> None:
    reference, fast, inputs = pair(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert error(fast(*inputs), reference(*inputs)) < 4e-2


@pytest.mark.parametrize("name", MODELS)
def test_fast_gives_the_gradients_of_the_reference(name: str) -> None:
    reference, fast, inputs = pair(name)
    for model in (reference, fast):
        model(*inputs).square().sum().backward()
    for (key, parameter), other in zip(reference.named_parameters(), fast.parameters(), strict=True):
        if parameter.grad is not None:
            assert other.grad is not None, key
            assert error(other.grad, parameter.grad) < 2e-5, key


def test_fast_sees_changes_of_its_weights() -> None:
    reference, fast, inputs = pair(MODELS[0])
    with torch.no_grad():
        fast(*inputs)
        for model in (reference, fast):
            for parameter in model.parameters():
                parameter.mul_(1.1)
        assert error(fast(*inputs), reference(*inputs)) < 5e-6
        fast.double().float()
        assert error(fast(*inputs), reference(*inputs)) < 5e-6


def test_fast_compiles_as_one_graph() -> None:
    task = published_task("FCDM-Ti")
    fast = build("FCDM-Ti", task, impl="fast").eval()
    with torch.no_grad():
        out = torch.compile(fast, fullgraph=True, backend="eager")(*make_inputs(task, 2, "meta"))
    assert out.shape == (2, task.out_channels, task.height, task.width)


@pytest.mark.parametrize("name", ["FCDM-S", "DiCo-S"])
def test_fast_reproduces_the_release(name: str) -> None:
    golden = golden_calls.read(name)
    model = golden_calls.build(name, golden)
    fast = build(name, replace(published_task(name), latent_size=golden.x.shape[-1]), impl="fast")
    fast.load_state_dict(model.state_dict(), assign=True)
    with torch.inference_mode():
        out = fast.eval()(*golden_calls.inputs(golden))
    assert error(out, torch.from_numpy(golden.outputs["out"])) < 2e-5


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match="impl: must be reference or fast, got 'slow'"):
        create("FCDM-Ti", impl="slow")
    with pytest.raises(ValueError, match="has no fast implementation; reference would work"):
        build("tests.models.test_fast:plain", published_task("FCDM-S"), impl="fast")


def plain(task: object) -> nn.Module:
    return nn.Identity()
