"""The configurations of the models of a comparison, all refused or none."""

from __future__ import annotations

from pathlib import Path

from lfm4ads_tf.config import Resolved, resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.compared_model import ComparedModel
from lfm4ads_tf.experiments.comparison_settings import ComparisonSettings
from lfm4ads_tf.models.registry import UPSTREAMS

_OURS = {
    "upstream.model": "give it with --models",
    "upstream.training.auto": "rates are chosen from --rates, the same for all models",
    "upstream.training.schedule": "all models are trained by epochs and stopped on validation",
    "seed": "give it with --seed",
    "seeds": "give it with --seeds",
    "plugins": "give them with --plugin",
}
_OF_ALL = (
    "batch_size",
    "epochs",
    "patience",
    "min_gain",
    "shuffle",
    "shuffle_window",
    "auxiliary_passes",
    "optimizer",
)
"""Keys of `upstream.training` that are the same for all models."""


def compared_models(settings: ComparisonSettings) -> list[ComparedModel]:
    """The models with their configurations.

    Overrides below `upstream.<registered model>` go to that model alone, under all its names.

    Args:
        settings: What the call asks for.

    Raises:
        UserError: A configuration cannot be, or differs where all are to be alike.
    """
    for assignment in settings.assignments:
        _refuse_ours(assignment, "--set")
        other = _model_of(assignment)
        if other is not None and other not in settings.models.values():
            raise UserError(
                f"--set gives options of the model '{other}', which is not compared.",
                received=assignment,
                fix=f"leave it out, or add {other} to --models",
            )
    for model, assignment in settings.model_assignments:
        _refuse_ours(assignment, "--model-set")
        path = _path(assignment)
        shared = path == ["upstream"] or (
            path[:2] == ["upstream", "training"] and (path + [""])[2] in ("", *_OF_ALL)
        )
        if path[0] not in ("upstream", "embeddings") or shared:
            raise UserError(
                "--model-set gives one model what all models have in common.",
                received=f"{model}:{assignment}",
                fix="give it with --set, for all models",
            )
    return [
        ComparedModel(name, _resolved(settings, name), settings.out) for name in settings.models
    ]


def _resolved(settings: ComparisonSettings, name: str) -> Resolved:
    """Spec and configuration of one model."""
    upstream = settings.models[name]
    own = [text for text in settings.assignments if _model_of(text) in (None, upstream)]
    own += [text for model, text in settings.model_assignments if model == name]
    training = {"auto": False, "schedule": "epochs"}
    options = {
        "seed": settings.seeds[0],
        "upstream": {"model": upstream, "training": training},
        # Nothing is extracted; weights of epochs could hand on no point-in-time snapshot.
        "representations": {"snapshots": "single"},
    }
    try:
        return resolve(Path(settings.spec), own, options)
    except UserError as error:
        raise UserError(
            f"The model '{name}' cannot be compared (--model-set {name}:key.path=value gives it a "
            f"key of its own). {error}"
        ) from error


def _path(assignment: str) -> list[str]:
    return assignment.partition("=")[0].strip().split(".")


def _model_of(assignment: str) -> str | None:
    """The model whose options an assignment gives, None for what all may read."""
    path = _path(assignment)
    named = path[0] == "upstream" and len(path) > 1 and path[1] in UPSTREAMS
    return path[1] if named else None


def _refuse_ours(assignment: str, option: str) -> None:
    """Refuses keys that the comparison sets."""
    key = ".".join(_path(assignment))
    if key in _OURS:
        raise UserError(
            f"{option} gives {key}, which the comparison sets.",
            received=assignment,
            fix=_OURS[key],
        )
