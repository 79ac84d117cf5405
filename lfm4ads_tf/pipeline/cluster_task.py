"""This process as one task of a cluster."""

from __future__ import annotations

from typing import NoReturn

from lfm4ads_tf.cluster.cluster_config import ClusterConfig
from lfm4ads_tf.cluster.host_functions import register
from lfm4ads_tf.cluster.mirrored import Mirrored
from lfm4ads_tf.cluster.node import begin, serve
from lfm4ads_tf.cluster.parameter_servers import ParameterServers
from lfm4ads_tf.cluster.row_loader import ROWS, RowLoader
from lfm4ads_tf.cluster.shared_folder import SEEN, seen
from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.data.execution import Execution
from lfm4ads_tf.embeddings.placement.segment_files import HOST_FUNCTIONS
from lfm4ads_tf.representations.store import open_join


class ClusterTask:
    """One task of a cluster: it serves, or it is the one that runs the stages.

    Args:
        given: What `--cluster` was given: a file, or `env`.
        task: What `--task` was given; TF_CONFIG's task when absent.

    Raises:
        UserError: The cluster or the task cannot be read.
    """

    def __init__(self, given: str, task: str | None) -> None:
        self.config, self.task = ClusterConfig.read(given, task)
        self._mirrored: Mirrored | None = None
        if self.runs_stages:
            begin(self.config, self.task)
            if self.config.mode == "mirrored":  # before TensorFlow runs an op
                self._mirrored = Mirrored(self.config, self.task)

    @property
    def runs_stages(self) -> bool:
        """Whether this process runs the stages; the others serve."""
        return self.task == self.config.first or self.config.mode == "mirrored"

    def serve(self) -> NoReturn:
        """Serves until the process is ended."""
        register(ROWS, RowLoader(open_join))
        register(SEEN, seen)
        for name, function in HOST_FUNCTIONS.items():
            register(name, function)
        serve(self.config, self.task)

    def execute(self, config: RunConfig) -> Execution:
        """Joins the cluster: what a process that runs the stages trains models by.

        Raises:
            ClusterLost: A task does not answer.
        """
        return self._mirrored or ParameterServers(self.config, config.cluster)
