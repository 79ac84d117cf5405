"""Binary cross entropy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lfm4ads_tf.metrics._inputs import labelled_probabilities


def logloss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Mean binary cross entropy, in nats.

    `-mean(y log p + (1 - y) log(1 - p))`, with p kept away from 0 and 1 by the machine epsilon
    of its own data type, since a float32 model cannot predict closer to 1.

    Args:
        labels: (B,) 0, 1 or NaN; rows with NaN are left out.
        probabilities: (B,) in [0, 1] on labelled rows.

    Returns:
        The loss, or None when no row is labelled.

    Raises:
        UserError: for inputs other than these.
    """
    given = np.asarray(probabilities)
    floating = np.issubdtype(given.dtype, np.floating)
    epsilon = float(np.finfo(given.dtype if floating else np.float64).eps)
    positive, probability = labelled_probabilities(labels, given)
    if not probability.size:
        return None
    probability = np.clip(probability, epsilon, 1.0 - epsilon)
    return float(-np.log(np.where(positive, probability, 1.0 - probability)).mean())
