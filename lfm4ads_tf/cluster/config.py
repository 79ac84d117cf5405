"""How a cluster trains."""

from __future__ import annotations

from pydantic import Field

from lfm4ads_tf.strict import StrictModel


class ClusterSettings(StrictModel):
    """Training with `--cluster`, see docs/cluster.md; not read without it.

    Attributes:
        steps_per_call: Consecutive batches that a worker is given at a time. More of them cost the
            chief less; a lost worker has up to as many batches learned twice.
        stall_s: Seconds without an answer of any worker after which the chief gives up with the
            exit code 75 and says what did not answer.
    """

    steps_per_call: int = Field(default=8, ge=1)
    stall_s: float = Field(default=300, gt=0)
