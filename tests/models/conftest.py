"""The fixtures of small models."""

from tests.small_models import embeddings, layout, make_batch, network, randomize

__all__ = ["embeddings", "layout", "make_batch", "network", "randomize"]
