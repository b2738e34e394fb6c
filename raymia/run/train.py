"""A training from its file to its manifest, whatever the kind of records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raymia.engine.base import call_together
from raymia.modalities.trainings import modality_trained_by
from raymia.prepare.trainer import Progress
from raymia.spec import TrainingFile
from raymia.spec.target_training import WorkersSpec
from raymia.util.caller import caller_state
from raymia.util.terminal import terminal


@caller_state()
def run_training(training: TrainingFile) -> dict[str, Any]:
    """Train, and write records, checkpoints and manifest; a finished training is left as it is.

    Returns
    -------
    The manifest.

    Raises
    ------
    InputError
        For anything wrong in what was given, before weights are loaded.
    RaymiaError
        If the training comes apart.
    """
    return modality_trained_by(training).train(training, _together)


def _together(train: Callable[[Progress], Any], workers: WorkersSpec, folder: str) -> Any:
    return call_together(train, workers, folder, terminal())
