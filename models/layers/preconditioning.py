"""A network called for the prediction of its task: the scales of a denoiser, or the network as it is.

Source: arXiv:2206.00364, Table 1 (EDM), for data of standard deviation 0.5.
Letters: N batch, C channels, H and W sides.
"""

from collections.abc import Callable

from torch import Tensor

from models.task import Task, Time

INVERSE_STD = 2.0  # of the data

Network = Callable[[Tensor, Tensor, Tensor], Tensor]  # image (N, C, H, W), noise (N,), labels -> image


def noise_input(t: Tensor, time: Time) -> Tensor:
    """The number of order 1 that such a network reads for t: (N,) -> (N,), in float32 or wider.

    It is log(sigma)/4 as published. For other predictions it is t in [0, 1], our choice.
    """
    wide = t.float() if t.itemsize < 4 or not t.is_floating_point() else t
    if time == "sigma":
        return wide.log() / 4
    return wide / 1000 if time == "steps" else wide


def predict(network: Network, task: Task, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The prediction of a task: (N, C, H, W), (N,), (N,) -> (N, C_out, H, W) in the type of x.

    A denoiser's input, output and target have unit variance inside: x is data + t * standard normal noise.
    The scales are computed in float32 or wider. For any other task the network is called as it is.
    """
    noise = noise_input(t, task.time)
    if task.prediction != "denoised":
        return network(x, noise, y)
    wide = x.float() if x.itemsize < 4 else x
    sigma = t.type_as(wide)[:, None, None, None]
    scale = (sigma.square() + INVERSE_STD**-2).rsqrt()
    inner = network((scale * wide).type_as(x), noise, y).type_as(wide)
    skip, out = scale.square() / INVERSE_STD**2, sigma * scale / INVERSE_STD
    return (skip * wide + out * inner).type_as(x)
