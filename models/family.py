"""A family of backbones: one network in the sizes of one paper, with its checkpoints' names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from models.task import Task

if TYPE_CHECKING:
    from torch import nn

    from models.kernels.backends import CudaPackage

Factory = Callable[[Task], "nn.Module"]

# (regular expression, replacement), applied in order: our parameter names to those of released checkpoints.
# In this direction a key missing from a checkpoint can be reported under its authors' name.
Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What `models.registry` lists.

    A factory that is a `functools.partial` of a network and its Config is also counted without running it
    if the network has a static method `closed_form(terms, config, task)` (see `models.arithmetic`).
    """

    network: "type[nn.Module]"
    task: Task  # as published, at the resolution it was published for
    official: Renames
    variants: Mapping[str, Factory]  # sizes as published: "FCDM-L"
    ablations: Mapping[str, Factory] = field(default_factory=dict)  # what a paper changed: "FCDM-L@k3"
    # "FCDM-Ti": a size in no paper, trained on a CPU in minutes. At 8 x 8 x 1 and 10 classes each has about
    # 0.43 M parameters and 4.3 M MACs, within 15 % of each other; DiG, in steps of 64, within 20 %, and DDT,
    # whose decoder modulates each token
    small: Mapping[str, Factory] = field(default_factory=dict)
    # variants of another task or resolution than `task`
    tasks: Mapping[str, Task] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of a variant that is a sum of others
    aliases: Mapping[str, str] = field(default_factory=dict)  # other printed names -> names of variants
    package: "CudaPackage | None" = None  # chosen by the field `backend` of Config

    def task_of(self, name: str) -> Task:
        """The task that a backbone of this family was published for."""
        return self.tasks.get(name.partition("@")[0], self.task)

    @property
    def backends(self) -> dict[str, Factory]:
        """The variants with their back end fixed: "DiG-S/2@torch" and "DiG-S/2@fla"."""
        if self.package is None:
            return {}
        fixed: dict[str, Factory] = {}
        for name, factory in self.variants.items():
            assert isinstance(factory, partial)
            for backend in ("torch", self.package.name):
                config = replace(factory.args[0], backend=backend)
                fixed[f"{name}@{backend}"] = partial(factory.func, config)
        return fixed

    @property
    def factories(self) -> dict[str, Factory]:
        return {**self.variants, **self.small, **self.ablations, **self.backends}
