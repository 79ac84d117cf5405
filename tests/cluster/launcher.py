"""A launcher of made-up processes: `python launcher.py FOLDER WORKERS SERVERS MAX_RESTARTS`."""

from __future__ import annotations

import sys
from pathlib import Path

from lfm4ads_tf.cluster.supervisor import Supervisor
from tests.cluster.nodes import Command

if __name__ == "__main__":
    place, workers, servers, restarts = sys.argv[1:]
    supervisor = Supervisor(
        Command(Path(place)),
        Path(place) / "logs",
        workers=int(workers),
        servers=int(servers),
        max_restarts=int(restarts),
        tell=lambda line: print(line, flush=True),
    )
    sys.exit(supervisor.run())
