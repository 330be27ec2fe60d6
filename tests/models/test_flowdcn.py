"""FlowDCN: deformable sampling against its reference, initial weights, the points of the released kernel."""

import pytest
import torch

from models import create
from models.flowdcn import POINTS, DeformableConvolution
from models.kernels.deformable import deformable_sampling, deformable_sampling_reference


def call(height: int, width: int, spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = torch.randn(2, height, width, 3, 5, dtype=torch.float64)
    offsets = spread * torch.randn(2, height, width, 3, POINTS, 2, dtype=torch.float64)
    return values, offsets, torch.randn(2, height, width, 3, POINTS, dtype=torch.float64)


@pytest.mark.parametrize(("height", "width", "spread"), [(7, 5, 3.0), (1, 6, 2.0), (8, 8, 0.3)])
def test_sampling_equals_its_reference_with_gradients(height: int, width: int, spread: float) -> None:
    args = [value.requires_grad_() for value in call(height, width, spread)]
    out, reference = deformable_sampling(*args), deformable_sampling_reference(*args)
    torch.testing.assert_close(out, reference)
    grads = [torch.autograd.grad(each.square().sum(), args) for each in (out, reference)]
    torch.testing.assert_close(grads[0], grads[1])


def test_points_left_of_the_map_extrapolate_from_its_first_cells() -> None:
    values = torch.tensor([1.0, 3.0, 10.0]).view(1, 1, 3, 1, 1)
    offsets, weights = torch.zeros(1, 1, 3, 1, 1, 2), torch.ones(1, 1, 3, 1, 1)
    offsets[..., 0] = -0.5
    # at -0.5, 0.5 and 1.5: 1.5 * 1 - 0.5 * 3, then the means of neighbours
    assert deformable_sampling(values, offsets, weights).flatten().tolist() == [0.0, 2.0, 6.5]
    offsets[..., 0] = 0.5
    assert deformable_sampling(values, offsets, weights).flatten().tolist() == [2.0, 6.5, 5.0]


def test_bfloat16_positions_are_computed_in_float32() -> None:
    values, offsets, weights = (value.float() for value in call(16, 16, 0.3))
    low = deformable_sampling(values.bfloat16(), offsets, weights.bfloat16())
    exact = deformable_sampling(values.bfloat16().float(), offsets, weights.bfloat16().float())
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).norm() < 0.01 * exact.norm()


def test_at_first_every_token_reads_a_grid_up_to_six_times_wider() -> None:
    model = create("FlowDCN-Ti/2")
    mixer = next(module for module in model.modules() if isinstance(module, DeformableConvolution))
    assert not any(map(torch.any, (mixer.shifts.weight, mixer.sizes.weight, mixer.weights.weight)))
    sizes = 6 * torch.sigmoid(mixer.size.flatten())
    torch.testing.assert_close(sizes, 6 * (torch.arange(1, 5) / 4 - 1e-4))
    assert mixer.grid[..., 0, :].flatten().tolist() == [-1, -1]
    assert mixer.grid[..., 1, :].flatten().tolist() == [0, -1]  # column, then row
    assert model.blocks[0].modulation.linear.weight.any()
