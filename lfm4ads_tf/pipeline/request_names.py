"""Names in the exports of a run: those that meet are refused before anything is made."""

from __future__ import annotations

from collections.abc import Sequence

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.features.kinds import MultiFeature
from lfm4ads_tf.features.raw_types import raw_columns_of, raw_types
from lfm4ads_tf.features.request_name import EXCLUDE, request_name, request_names
from lfm4ads_tf.pipeline.retrieval_model import retrieval_methods
from lfm4ads_tf.pipeline.run import Run
from lfm4ads_tf.representations.names import representation_names

_INDICES = {"scenario_index": "the scenario", "branch_index": "the branch"}


def check_request_names(run: Run) -> None:
    """Refuses what could not be told apart in an export of the run.

    An export asks for raw columns and stored representations, and tells by its signature `encode`
    what the model is fed, both under their request names.

    Raises:
        UserError: Two columns, or a column and a representation, are requested by one name; a
            user's column is called as the excluded items of a retrieval are; or two features, or
            a feature and something else that a model is fed, are told by one name.
    """
    layers = run.config.upstream.layer_names(run.spec.task_names)
    stored = representation_names(run.config.representations, layers)
    _check_columns(run, stored)
    _check_features(run, stored)


def _check_columns(run: Run, stored: Sequence[str]) -> None:
    spec = run.spec
    columns = list(raw_types(spec))
    if run.config.export.representations == "lookup":
        columns += [c for c in (spec.keys.user, spec.keys.item) if c not in columns]
    names = request_names(columns)
    held = {name.lower(): column for column, name in names.items()}
    for representation in stored:
        column = held.get(request_name(representation).lower())
        if column is not None:
            raise UserError(
                f"The column '{column}' and the representation '{representation}' cannot be told "
                "apart in a request.",
                received=f"both are requested as '{request_name(representation)}'",
                fix="rename the column in the data and the feature spec",
            )
    if not run.config.retrieval.enabled or all(m.user_sources for m in retrieval_methods(run)):
        return
    column = held.get(EXCLUDE)
    users = [n for n, f in spec.features.items() if f.owner == "user"]
    readers = [n for n in users if column in raw_columns_of(spec, n)]
    if column is not None and readers:
        raise UserError(
            f"The column '{column}' cannot be told apart from '{EXCLUDE}', by which a retrieval is "
            "asked to leave items out.",
            received=f"user feature '{readers[0]}', which reads '{column}'",
            fix="rename the column in the data and the feature spec, or set "
            "retrieval.enabled=false",
        )


def _check_features(run: Run, stored: Sequence[str]) -> None:
    told: dict[str, str] = {}

    def add(key: str, what: str) -> None:
        if told.setdefault(key, what) != what:
            raise UserError(
                f"{what[:1].upper()}{what[1:]} and {told[key]} cannot be told apart in an export.",
                received=f"both are called '{key}' in its signature `encode`",
                fix="rename the feature in the feature spec; give `column` where its name was the "
                "raw column's",
            )

    for key, what in _INDICES.items():
        add(key, what)
    for name in stored:
        add(request_name(name), f"the representation '{name}'")
    for name, feature in run.spec.features.items():
        add(request_name(name), f"the feature '{name}'")
        if isinstance(feature, MultiFeature) and feature.weights is not None:
            add(f"{request_name(name)}_weights", f"the weights of '{name}'")
