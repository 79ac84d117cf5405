"""Keeps TensorFlow's registry of custom gradients from growing with every training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.framework import ops


@contextmanager
def released_gradients() -> Iterator[None]:
    """Forgets the custom gradients that were traced inside the context.

    `tf.custom_gradient` registers each trace for the life of the process, and the registered
    function holds its whole graph, the stored representations that feed it included: some 100 MB
    for each small model trained after the other. A traced training step has its gradients already
    and needs the entries no more; a model of the context cannot be differentiated in a new trace
    that was begun inside it.
    """
    # Not public: where it is missing, nothing is forgotten.
    registry = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    before = set(registry)
    try:
        yield
    finally:
        for name in set(registry) - before:
            if name.startswith("CustomGradient-"):
                del registry[name]
