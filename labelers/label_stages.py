"""The stages of a labelling task, in order."""

from __future__ import annotations

from labelers.stages import Label, LabelParams, Vote, narrowed
from labelers.stages_distill import Classify, Distill, DistillTaskParams
from labelers.stages_fit import FitLabels
from pipeline.stage import Stage


def label_stages(task: LabelParams) -> list[Stage]:
    """vote (unless scores are weighed), fit-labels, label, and with a distilled model distill and classify."""
    stages: list[Stage] = []
    if task.scores:
        from labelers.stages_weaver import FitWeaver, LabelWeaver, WeaverFitParams, WeaverPredictParams

        stages += [FitWeaver(narrowed(task, WeaverFitParams)), LabelWeaver(narrowed(task, WeaverPredictParams))]
    elif task.embeddings is None:
        stages += [Vote(task), FitLabels(task), Label(task)]
    else:
        from labelers.stages_liger import FitLiger, LabelLiger

        stages += [Vote(task), FitLiger(task), LabelLiger(task)]
    return [*stages, Distill(narrowed(task, DistillTaskParams)), Classify(task)] if task.distill else stages
