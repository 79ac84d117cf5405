"""LFM4Ads-TF: foundation-model transfer for ads recommendation in TensorFlow.

The names below are the library's front door; they are imported when they are asked for, so that
`import lfm4ads_tf` alone starts no TensorFlow.

    >>> import lfm4ads_tf as lfm
    >>> lfm.FoundationModel.__name__
    'FoundationModel'

tensorflow-recommenders needs Keras 2 behind `tf.keras`, so the switch is set here, before
TensorFlow is imported; a process that already bound Keras 3 is stopped with a clear error.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from lfm4ads_tf._version import __version__
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.quiet import hide_banner_of

PUBLIC: dict[str, str] = {
    # data
    "load_spec": "lfm4ads_tf.features.spec_file:load_spec",
    "FeatureSpec": "lfm4ads_tf.features.spec:FeatureSpec",
    "fetch": "lfm4ads_tf.front.fetch:fetch",
    "encode": "lfm4ads_tf.front.encode:encode",
    "EncodedLog": "lfm4ads_tf.front.encoded_log:EncodedLog",
    "PeriodChain": "lfm4ads_tf.front.period_chain:PeriodChain",
    # sizes
    "NetworkConfig": "lfm4ads_tf.models.config:NetworkConfig",
    "BlockConfig": "lfm4ads_tf.interactions.config:BlockConfig",
    "EmbeddingsConfig": "lfm4ads_tf.embeddings.config:EmbeddingsConfig",
    # layers
    "ShardedEmbedding": "lfm4ads_tf.embeddings.table:ShardedEmbedding",
    "TableConfig": "lfm4ads_tf.embeddings.table_config:TableConfig",
    "EmbeddedFeature": "lfm4ads_tf.embeddings.embedded_feature:EmbeddedFeature",
    "InteractionBlock": "lfm4ads_tf.interactions.block:InteractionBlock",
    "InteractionLayer": "lfm4ads_tf.interactions.layer:InteractionLayer",
    "BlockInputs": "lfm4ads_tf.interactions.inputs:BlockInputs",
    "Adapter": "lfm4ads_tf.transfer.adapters.adapter:Adapter",
    # models
    "UpstreamModel": "lfm4ads_tf.models.upstream:UpstreamModel",
    "FoundationModel": "lfm4ads_tf.models.foundation:FoundationModel",
    "MMoE": "lfm4ads_tf.models.mmoe:MMoE",
    "DownstreamModel": "lfm4ads_tf.transfer.downstream:DownstreamModel",
    "build_downstream": "lfm4ads_tf.front.build_downstream:build_downstream",
    # training
    "HybridOptimizer": "lfm4ads_tf.optim.hybrid_optimizer:HybridOptimizer",
    "LOSSES": "lfm4ads_tf.losses.registry:LOSSES",
    # transfer and serving
    "extract": "lfm4ads_tf.front.extract:extract",
    "RepresentationStore": "lfm4ads_tf.representations.store:RepresentationStore",
    "export_model": "lfm4ads_tf.front.export_model:export_model",
    "load_export": "lfm4ads_tf.front.load_export:load_export",
    "UserError": "lfm4ads_tf.errors:UserError",
}
"""Public name -> where it is, `module:attribute`."""

__all__ = ["__version__", "require_keras_2", *PUBLIC]  # noqa: PLE0604 - the keys are texts

# Set before TensorFlow starts: its C++ start-up banner drowns the messages meant for the user. What
# is said before its log knows the variable is kept back, unless the variable asks for more.
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    hide_banner_of("tensorflow")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module, _, attribute = PUBLIC[name].partition(":")
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*globals(), *PUBLIC})


def require_keras_2() -> None:
    """Selects Keras 2 for `tf.keras`, or stops when Keras 3 is already bound to it.

    Raises:
        UserError: `tf.keras` was touched before this package was imported and is Keras 3.
    """
    bound = _bound_keras_version()
    if bound is not None and not bound.startswith("2"):
        raise UserError(
            "Keras 3 is already bound to `tf.keras` in this process; LFM4Ads-TF needs Keras 2.",
            received=f"keras {bound}",
            fix="import lfm4ads_tf before tensorflow, or start Python with TF_USE_LEGACY_KERAS=1",
        )
    flag = os.environ.get("TF_USE_LEGACY_KERAS")
    if flag is not None and flag.lower() not in ("1", "true"):
        raise UserError(
            "TF_USE_LEGACY_KERAS asks for Keras 3; LFM4Ads-TF needs Keras 2.",
            received=f"TF_USE_LEGACY_KERAS={flag}",
            fix="unset it or set TF_USE_LEGACY_KERAS=1",
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


def _bound_keras_version() -> str | None:
    """Version of the Keras that `tf.keras` already resolved to, None if it did not yet."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return None
    # `tf.keras` is a lazy loader that picks its Keras when its first attribute is read; reading
    # the loader's own dictionary does not make it choose.
    keras = vars(tensorflow).get("keras")
    if keras is None or vars(keras).get("_tfll_initialized", True) is False:
        return None
    # The Keras 2 package behind `tf.keras` carries no version of its own.
    return str(vars(keras).get("__version__", "2"))


try:
    require_keras_2()
except UserError as error:
    # A command of ours (`lfm4ads-...`, `python -m lfm4ads_tf...`) has run no line of its own yet.
    started = os.path.basename((getattr(sys, "argv", None) or [""])[0])
    if started != "-m" and not started.startswith("lfm4ads-"):
        raise
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
