"""Training objectives by name, and the task of the network for each objective."""

from bench.datasets.names import IMAGES
from bench.records.base import Size
from bench.records.training import Recipe
from bench.training.losses.diffusion import IDDPM
from bench.training.losses.edm import EDM
from bench.training.losses.flow import Flow, FlowX
from models.task import Prediction, Task

Objective = IDDPM | Flow | EDM  # a noising process and a loss
_OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective for objective in (IDDPM, Flow, FlowX, EDM)
}
NAMES = tuple(_OBJECTIVES)
_OF_PREDICTION: dict[Prediction, str] = {
    "epsilon": "iddpm",
    "velocity": "flow",
    "reverse-velocity": "flow",
    "x": "flow-x",
    "denoised": "edm",
}


def find(name: str) -> Objective:
    """The objective with a name; ValueError without one."""
    if name not in _OBJECTIVES:
        raise ValueError(f"{name}: no such objective; known are {', '.join(NAMES)}")
    return _OBJECTIVES[name]()


def of_task(task: Task) -> str:
    """The name of the objective that a network for a task was trained by."""
    return _OF_PREDICTION[task.prediction]


def check_noise(name: str, task: Task, objective: str) -> None:
    """Check that a network is noised as its input demands (only a denoiser reads sigma), or ValueError."""
    if (task.prediction == "denoised") == (find(objective).prediction == "denoised"):
        return
    if objective == EDM.name:
        raise ValueError(f"{name}: predicts {task.prediction}; edm is for denoisers, as EDM2 and HDiT")
    raise ValueError(f"{name}: is a denoiser, whose t is sigma; got {objective}, edm would work")


def task_of(recipe: Recipe, latent_size: Size) -> Task:
    """The task for which a network trained by a recipe is built."""
    prediction = find(recipe.objective).prediction
    return Task(
        latent_size=latent_size,
        in_channels=recipe.channels,
        num_classes=recipe.classes,
        learn_sigma=prediction == "epsilon",
        factor=1 if recipe.data in IMAGES else Task().factor,
        prediction=prediction,
    )
