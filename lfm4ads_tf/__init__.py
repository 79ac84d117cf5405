"""LFM4Ads-TF: foundation-model transfer for ads recommendation in TensorFlow.

tensorflow-recommenders needs Keras 2 behind `tf.keras`, so the switch is set here, before
TensorFlow is imported; a process that already bound Keras 3 is stopped with a clear error.
"""

from __future__ import annotations

import importlib
import os
import sys

from lfm4ads_tf._version import __version__
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.quiet import hide_banner_of

PUBLIC: dict[str, str] = {
    "FoundationModel": "lfm4ads_tf.models.foundation:FoundationModel",
    "MMoE": "lfm4ads_tf.models.mmoe:MMoE",
    "DownstreamModel": "lfm4ads_tf.transfer.downstream:DownstreamModel",
    "InteractionBlock": "lfm4ads_tf.interactions.block:InteractionBlock",
    "ShardedEmbedding": "lfm4ads_tf.embeddings.table:ShardedEmbedding",
    "HybridOptimizer": "lfm4ads_tf.optim.hybrid_optimizer:HybridOptimizer",
    "EncodedBatch": "lfm4ads_tf.batch:EncodedBatch",
    "FeatureSpec": "lfm4ads_tf.features.spec:FeatureSpec",
    "RunConfig": "lfm4ads_tf.config:RunConfig",
}
__all__ = [*PUBLIC, "__version__", "require_keras_2"]

# Set before TensorFlow starts: its C++ start-up banner drowns the messages meant for the user. What
# is said before its log knows the variable is kept back, unless the variable asks for more.
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    hide_banner_of("tensorflow")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


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


def __getattr__(name: str) -> object:
    """The public names, imported when they are asked for."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


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
