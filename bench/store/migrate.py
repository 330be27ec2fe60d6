"""Migration of records from earlier formats to the current one.

Format 1 ("schema": 1) stored the request as a string, `run.question`. Format 2 had one implementation of a
backbone, `compile` in place of `engine`, one process a case, and counts without remarks.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from bench.records.base import StoreError

Json = dict[str, Any]

_SETTINGS = ("precision", "compile", "cuda_graphs", "channels_last", "attention", "checkpointing", "weights")
_SIZED = ("model", "family", "res", "latent_size", "batch")
_MODEL = (*_SIZED, *_SETTINGS)
_PASS = ("protocol", "soak_s", "budget_s", "precision_target")
_EFFORT = ("budget_s", "precision_target")
_RUN_DEFAULTS: Json = {
    "compile": False,
    "cuda_graphs": False,
    "channels_last": False,
    "attention": "auto",
    "checkpointing": False,
    "protocol": "suite",
    "soak_s": 0.0,
    "budget_s": 0.0,
    "precision_target": 0.0,
    "weights": "random",
}
_SCALING = re.compile(r"scaling of (inference|training) from batch (\d+), visit (\d+)")
_MEMORY = re.compile(r"memory of (inference|training)(?: within (\d+) bytes)?")
_SAMPLE = re.compile(
    r"sample: (\d+) by (\w+) of (\w+) in (\d+) steps, seed (\d+)"
    r"(?:, guidance ([\d.e+-]+) of (\d+) channels)?(?:, classes ([\d ]+))?"
)
_DEPTHWISE = re.compile(r"depthwise: (\w+), (\d+)x\d+, (\d+) channels, (\d+)x(\d+)")


def migrate(old: Mapping[str, Any]) -> Json:
    """Convert one JSON object of an earlier format to the current one. StoreError: an unknown format."""
    found = old.get("format", old.get("schema"))
    if found not in (1, 2):
        raise StoreError(f"format {found!r}; this version reads 3, and 1 and 2 by migration")
    try:
        body = _one_process({"format": 3, **(_from_1(dict(old)) if found == 1 else old)})
        if "case" in body:
            body["case"] = case_from_2(body["case"])
        if body.get("kind") == "flops":
            body["remarks"] = []
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"not a record of format {found}: {type(error).__name__} {error}") from error
    return {**body, "format": 3}


def case_from_2(case: Json) -> Json:
    """Convert a case of format 2: models had the reference implementation only."""
    if "arms" in case:
        return {**case, "arms": [case_from_2(arm) for arm in case["arms"]]}
    if "cuda_graphs" not in case:  # no ModelCase
        return case
    compiled = case["compile"]
    rest = {name: value for name, value in case.items() if name != "compile"}
    return {**rest, "impl": "reference", "engine": "compile" if compiled else "eager"}


def _one_process(old: Json) -> Json:
    """Add the processes of a case, of which format 2 had one."""
    kind = old.get("kind")
    of = old.get("of") if kind == "skipped" else kind
    if of in ("throughput", "versus"):
        old["case"] = {**old["case"], "processes": 1}
    if kind in ("throughput", "scaling", "versus", "depthwise"):
        old["process_starts"] = []
    return old


def _from_1(old: Json) -> Json:
    kind = old.pop("kind")
    del old["schema"]
    if kind == "note":
        return {"kind": "note", **old}
    if kind in _BY_KIND:
        return _BY_KIND[kind](old)
    if kind == "not compared":
        arms = [_run(run) for run in old["runs"]]
        case, environment = _versus(arms)
        return _skipped("versus", case, environment, old)
    run = _run(old.pop("run"))
    if kind == "skipped":
        return _skipped(*_case_of_question(run), run["environment"], old)
    if kind == "memory":
        return _memory(old, run)
    if kind in _WITH_RUN:
        _WITH_RUN[kind](old)
    more = {name: old.pop(name) for name in _OF_CASE.get(kind, ()) if name in old}
    name, case = _case_of_question(run, more)
    return {"kind": name, "case": case, "environment": run["environment"], **old}


def _run(run: Json) -> Json:
    return {**_RUN_DEFAULTS, **run, "environment": _environment(run["environment"])}


def _environment(environment: Json) -> Json:
    return {"unit": "", **environment}


def _skipped(kind: str, case: Json, environment: Json, old: Json) -> Json:
    body = {"case": case, "environment": environment, "status": old["status"], "reason": old["reason"]}
    return {"kind": "skipped", "of": kind, **body}


def _fields(run: Json, *names: str) -> Json:
    return {"device": run["environment"]["device_type"], **{name: run[name] for name in names}}


def _case_of_question(run: Json, more: Json | None = None) -> tuple[str, Json]:
    """Kind and case of a run; `more` has the fields of the case that the record stored."""
    question = run["question"]
    model = _fields(run, *_MODEL)
    if question in ("throughput", "latency", "train_step"):
        work = "training" if question == "train_step" else "inference"
        return "throughput", {**model, "work": work, **_fields(run, *_PASS)}
    if found := _SCALING.fullmatch(question):
        visit = {"work": found[1], "from_batch": int(found[2]), "visit": int(found[3])}
        return "scaling", {**model, **_fields(run, *_PASS), **visit}
    if found := _MEMORY.fullmatch(question):
        return "memory", {**model, "work": found[1], "limit_bytes": int(found[2]) if found[2] else None}
    if question.startswith("profile"):
        return "profile", {**model, "by": "module" if question.endswith("module") else "kind"}
    if question == "convergence":
        return "convergence", {**model, **(more or {})}
    if question in ("spectrum", "channels"):
        return question, {**model, **(more or {})}
    if question == "golden":
        return "golden", model
    if found := _SAMPLE.fullmatch(question):
        chain = {
            "images": int(found[1]),
            "sampler": found[2],
            "objective": found[3],
            "steps": int(found[4]),
            "seed": int(found[5]),
            "guidance": float(found[6] or 1),
            "guided_channels": int(found[7] or 3),
            "classes": [int(label) for label in (found[8] or "").split()],
            **(more or {}),
        }
        return "sample", {**model, **chain}
    if found := _DEPTHWISE.fullmatch(question):
        height, width = int(found[4]), int(found[5])
        operation = {
            "operation": found[1],
            "kernel": int(found[2]),
            "channels": int(found[3]),
            "image_size": height if height == width else [height, width],
            "calls_per_pass": 1,
            **(more or {}),
        }
        return "depthwise", {**model, **operation, **_fields(run, *_EFFORT)}
    raise ValueError(f"question {question!r}")


def _versus(arms: list[Json]) -> tuple[Json, Json]:
    first = arms[0]
    return {**_fields(first, *_EFFORT), "arms": [_fields(run, *_MODEL) for run in arms]}, first["environment"]


def _comparison(old: Json) -> Json:
    case, environment = _versus([_run(run) for run in old.pop("runs")])
    return {"kind": "versus", "case": case, "environment": environment, **old}


def _without_run(kind: str, *names: str) -> Callable[[Json], Json]:
    """Migration of a record that had the fields of its case, `names`, as its own."""

    def migrated(old: Json) -> Json:
        environment = _environment(old.pop("environment"))
        case = {"device": environment["device_type"], **{name: old.pop(name) for name in names}}
        return {"kind": kind, "case": case, "environment": environment, **old}

    return migrated


def _quality(old: Json) -> Json:
    sizes = ("n_samples", "n_reference", "kid_subset", "kid_subsets", "neighbours", "compared")
    migrated = _without_run("quality", "samples", "reference", "distance", "made", *sizes)
    return migrated({"made": "", **old, "kid_subsets": old.get("kid_subsets", 0) or len(old["kid"])})


def _memory(old: Json, run: Json) -> Json:
    kind, case = _case_of_question(run)
    if old["use"] is None:
        return _skipped(kind, case, run["environment"], old)
    case["checkpointing"] = old["checkpointing"]
    return {"kind": kind, "case": case, "environment": run["environment"], "use": old["use"]}


def _profile(old: Json) -> None:
    """Convert the mean over passes, one number in older records, to a list."""
    old.pop("passes")
    old["seconds"] = [[name, times if isinstance(times, list) else [times]] for name, times in old["seconds"]]
    old["wall_s"] = old["wall_s"] if isinstance(old["wall_s"], list) else [old["wall_s"]]


def _telemetry(old: Json) -> None:
    if old["telemetry"] is not None:
        calls = old["telemetry"].get("calls")
        old["telemetry"]["calls"] = len(old["times_s"]) if calls is None else calls
        old["telemetry"].setdefault("held_back", [])


def _implemented(old: Json) -> None:
    old["implementations"] = old.pop("variants")
    old["calls_per_pass"] = old.pop("calls_a_pass")
    old["image_size"] = old.pop("size")


_BY_KIND = {
    "counted": _without_run("flops", *_SIZED, "counter"),
    "work": _without_run("operators", *_SIZED, "precision", "work"),
    "ceiling": _without_run("ceiling", "what", "precision"),
    "comparison": _comparison,
    "quality": _quality,
}
_WITH_RUN = {
    "profiled": _profile,
    "throughput": _telemetry,
    "sampled": _telemetry,
    "implemented": _implemented,
}
# fields of an old record that are now fields of its case
_OF_CASE = {
    "trained": ("recipe", "seed", "processes"),
    "sampled": ("objective", "sampler", "steps", "guidance", "guided_channels", "images", "seed"),
    "spectrum": ("probe",),
    "channel scores": ("probe", "pattern"),
    "implemented": ("operation", "kernel", "channels", "image_size", "calls_per_pass"),
}
