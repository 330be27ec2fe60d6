"""Building a network without drawing its initial weights, which takes most of the time of building it."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = (
    *(Tensor.uniform_, Tensor.normal_),
    *(nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_),  # the only ones with names of their own
)


class WithoutDraws(TorchFunctionMode):
    """Context in which uniform and normal draws give 0, and on the meta device do nothing.

    Memory as it was found would not do: nn.init.trunc_normal_ draws until all values are within its bounds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - of any function of torch
        kwargs = kwargs or {}
        if func not in _DRAWS:
            return func(*args, **kwargs)
        tensor: Tensor = args[0] if args else kwargs["tensor"]
        if not tensor.is_meta:
            tensor.detach().zero_()
        return tensor
