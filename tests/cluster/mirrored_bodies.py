"""One process of a mirrored training of a small log.

    python -m tests.cluster.mirrored_bodies DATA FOLDER ADDRESSES INDEX OPTIONS

Prints a JSON object on its last line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lfm4ads_tf  # noqa: F401 - settles which Keras is used
from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.mirrored import Mirrored
from lfm4ads_tf.cluster.node import begin
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.errors import UserError
from tests.cluster.scripts import report_and_leave


def report() -> dict[str, Any]:
    """Trains as the other processes do."""
    data, folder, addresses, index, options = sys.argv[1:]
    config, task = ClusterConfig(None, tuple(addresses.split(","))), Task("worker", int(index))
    begin(config, task)
    execution = Mirrored(config, task)  # before TensorFlow runs an op
    from lfm4ads_tf.data.cache import EncodedCache
    from tests.cluster.training_bodies import trained

    agreed = [execution.agreed(lambda: {"from": task.index, "text": "ä" * 300}) for _ in range(2)]
    execution.require_shared(Path(data))
    refused = ""
    try:  # the last one was given another folder
        execution.require_shared(Path(data) if index != "2" else Path(data).parent)
    except UserError as error:
        refused = str(error)
    found = trained(execution, EncodedCache(Path(data)), Path(folder), **json.loads(options))
    execution.wait()
    return {**found, "agreed": agreed, "first": execution.first, "refused": refused}


if __name__ == "__main__":
    report_and_leave(report)
