"""Fixtures of the tests of samples."""

import importlib
import typing
from typing import Any

import pytest
import torch

from bench.jobs import worker
from bench.records.base import Case, Environment, Record
from bench.store.codec import decode


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: a worker takes seconds to start."""

    def measured(
        measure: str,
        case: Case,
        environment: Environment,
        timeout_s: float,
        memory_bytes: int | None = None,
        **inputs: Any,  # noqa: ANN401 - as of worker.run
    ) -> Record:
        module, _, name = measure.partition(":")
        held = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        function = getattr(importlib.import_module(module), name)
        hints = typing.get_type_hints(function)
        decoded = {name: decode(hints[name], value) for name, value in inputs.items()}
        result = worker.answer(function, case, environment, **decoded)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = held
        return result

    monkeypatch.setattr(worker, "run", measured)
