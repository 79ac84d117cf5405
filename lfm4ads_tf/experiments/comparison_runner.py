"""Runs a comparison of upstream models; a killed one goes on where it stopped."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import tensorflow as tf

from lfm4ads_tf.analysis.comparison_page import comparison_page
from lfm4ads_tf.data.cache import EncodedCache
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.experiments.compared_model import ComparedModel
from lfm4ads_tf.experiments.compared_models import compared_models
from lfm4ads_tf.experiments.comparison_document import comparison_document
from lfm4ads_tf.experiments.comparison_folder import add_models, take_folder
from lfm4ads_tf.experiments.comparison_settings import ComparisonSettings
from lfm4ads_tf.experiments.comparison_text import comparison_text
from lfm4ads_tf.experiments.feedback_slices import FeedbackSlices
from lfm4ads_tf.files import write_json, write_text
from lfm4ads_tf.models.scenario_checks import refuse_few_scenarios, refuse_without_scenarios
from lfm4ads_tf.pipeline.prepare import prepare, source_fingerprint, source_folder
from lfm4ads_tf.progress import Activity

_BY_SCENARIO = "A comparison by scenario"
_ELSE = "compare with lfm4ads-multitask"
_LOG = logging.getLogger(__name__)


def run_comparison(settings: ComparisonSettings) -> str:
    """Prepares once, trains and scores every model, and writes `comparison.json` and `.html`.

    Every configuration is checked against spec, labels and tables before anything is trained.

    Args:
        settings: What the call asks for.

    Returns:
        The result in a few lines.

    Raises:
        UserError: Anything that the user can mend.
    """
    # Kernels that sum in the order in which threads finish would make two runs differ.
    tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(settings.seeds[0])
    models = compared_models(settings)
    spec = models[0].resolved.spec
    if settings.axis == "scenario":
        refuse_without_scenarios(_BY_SCENARIO, given=spec.keys.scenario is not None, instead=_ELSE)
    folder = source_folder(spec, settings.data_dir, quiet=settings.quiet)
    configs = {model.name: model.config.model_dump(mode="json") for model in models}
    identity = {
        "spec": spec.model_dump(mode="json", exclude={"run", "skew"}),
        "data": source_fingerprint(spec, folder),
        "models": configs,
    }
    take_folder(settings.out, identity, overwrite=settings.overwrite)
    cache = prepare(models[0].run, settings.data_dir)
    _check_validation(cache)
    if settings.axis == "scenario":
        refuse_few_scenarios(_BY_SCENARIO, cache.layout.scenarios, instead=_ELSE)
    for model in models:
        model.check()
    pair = settings.feedback_pair
    slices = FeedbackSlices(cache, pair) if pair else None
    add_models(settings.out, configs)
    trained = _train(models, settings)
    document = comparison_document(settings, models, trained, cache, slices)
    write_json(settings.out / "comparison.json", document)
    write_text(settings.out / "comparison.html", comparison_page(document))
    return comparison_text(document)


def _train(models: list[ComparedModel], settings: ComparisonSettings) -> dict[str, dict[str, Any]]:
    """Model -> what `ComparedModel.complete` gave."""
    missing = sum(model.missing(settings.seeds, settings.rates) for model in models)
    if missing:
        _LOG.info("comparison: up to %d trainings of %d models", missing, len(models))
    with Activity("comparison, trainings", missing, quiet=settings.quiet) as activity:
        return {
            model.name: model.complete(settings.seeds, settings.rates, lambda: activity.advance(1))
            for model in models
        }


def _check_validation(cache: EncodedCache) -> None:
    """Rates and epochs are chosen on validation, so its rows must tell models apart."""
    labels = cache.labels[cache.rows_of("valid")]
    if not any({0.0, 1.0} <= set(np.unique(task)) for task in labels.T):
        raise UserError(
            "The validation rows hold no task with both classes: nothing can be chosen on them.",
            received=f"{len(labels)} validation rows",
            fix="correct `split` in the feature spec",
        )
