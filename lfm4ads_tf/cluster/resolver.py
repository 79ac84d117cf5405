"""What TensorFlow's strategies are told of a cluster."""

from __future__ import annotations

import tensorflow as tf

from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.task import Task


def resolver_of(
    config: ClusterConfig, task: Task
) -> tf.distribute.cluster_resolver.ClusterResolver:
    """The addresses of a cluster as its process `task` sees them."""
    return tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(config.as_spec()),
        task_type=task.job,
        task_id=task.index,
        rpc_layer="grpc",
    )
