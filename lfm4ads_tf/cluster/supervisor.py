"""The processes of a cluster on this machine: started, watched, restarted, ended."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lfm4ads_tf.cluster.addresses import free_ports, port_of
from lfm4ads_tf.cluster.child import Child
from lfm4ads_tf.cluster.cluster_config import VARIABLE, ClusterConfig
from lfm4ads_tf.cluster.exit_codes import ADDRESS_TAKEN, TRY_AGAIN
from lfm4ads_tf.cluster.launch import LAUNCH
from lfm4ads_tf.cluster.lifeline import LIFELINE
from lfm4ads_tf.cluster.serving_line import serving_line
from lfm4ads_tf.cluster.task import Task
from lfm4ads_tf.cluster.threads import shared_threads

_HOST = "127.0.0.1"
_USERS_ERROR = 2
_STALLED = (TRY_AGAIN, -signal.SIGALRM)  # the latter see `standstill`
_DEFECT = 1
_PAUSE = 0.1  # seconds between two looks at the processes
_QUICK = 30.0  # seconds within which a process that never served ended "at once"
_QUICK_ENDS = 5
_ADDRESS_TRIES = 5
_PATIENCE = 10.0  # seconds in which a chief whose server is lost leaves by itself
_GRACE = 2.0  # seconds in which a process ends that is asked to
_SHOWN = 20  # lines of a log


class Supervisor:
    """Runs parameter servers, workers and a chief, and restarts what is lost.

    A worker that ends is restarted alone: the others learn its batches meanwhile. A lost server,
    or a chief that died, has all servers and the chief restarted together, from the last
    checkpoint: the tables are spread over all servers, and a server that stayed would keep the
    earlier chief's copy of them beside the new one. Where the chief gave up though nothing ended,
    some process does not answer, and the workers are restarted too. Without servers the first
    worker is the chief; the others hold copies of all it has, so a lost one has all restarted.

    Args:
        command: Task -> command line of its process.
        folder: Where each process' log goes, appended to `<job>_<index>.log`.
        workers: Number of workers.
        servers: Number of parameter servers; none for mirrored training.
        max_restarts: How often all servers and the chief are restarted.
        tell: Takes a line for the user.
        patience: Seconds that a chief whose server is lost gets to leave by itself.
    """

    def __init__(
        self,
        command: Callable[[Task], Sequence[str]],
        folder: Path,
        *,
        workers: int,
        servers: int,
        max_restarts: int = 3,
        tell: Callable[[str], None] = print,
        patience: float = _PATIENCE,
    ) -> None:
        self._command = command
        self._folder = folder
        self._sizes = workers, servers
        self._max_restarts = max_restarts
        self._tell = tell
        self._patience = patience
        self._config = _choose(workers, servers)
        self._children: dict[Task, Child] = {}
        self._launch = uuid.uuid4().hex
        self._restarts = 0
        self._address_tries = 0
        self._quick_ends: dict[Task, int] = {}
        self._signal: int | None = None

    def run(self) -> int:
        """Starts all processes and watches them until the chief is done.

        Returns:
            The chief's exit code; 2 where another process ended with an error of the user's; 1
            where restarts did not help; 130 or 143 after an interrupt or SIGTERM. No process is
            left.

        Raises:
            OSError: A process cannot be started, or its log not be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._signals():
            try:
                self._start(self._config.tasks)
                code = None
                while code is None:
                    time.sleep(_PAUSE)
                    code = self._look()
                return code
            finally:
                self._stop(self._children)

    def _look(self) -> int | None:
        """Looks at all processes once and mends what it can; the exit code when all is over."""
        if self._signal is not None:
            self._tell(f"ending all processes after {signal.Signals(self._signal).name}")
            return 128 + self._signal
        first = self._config.first
        ended = {t: code for t, c in self._children.items() if (code := c.ended()) is not None}
        if not ended:
            return None
        if ADDRESS_TAKEN in ended.values():
            return self._elsewhere(next(t for t, code in ended.items() if code == ADDRESS_TAKEN))
        vital = [t for t in ended if t != first and self._is_vital(t)]
        if first in ended and _is_final(ended[first], vital):
            return self._final(first)
        for task, code in ended.items():
            if code == _USERS_ERROR:  # it would be the same after a restart
                return self._final(task)
        if first in ended or vital:
            return self._restart_all(vital[0] if vital else first)
        return next((c for t in ended if (c := self._restart_worker(t)) is not None), None)

    def _is_vital(self, task: Task) -> bool:
        """Whether nobody can go on without a process that ended and is not the first."""
        if task.job == "ps":
            return True
        # A mirrored worker that is through has done all that the others need of it.
        return self._config.mode == "mirrored" and self._children[task].ended() != 0

    def _restart_worker(self, task: Task) -> int | None:
        """Starts a worker again; an exit code where it ends at once again and again."""
        child = self._children[task]
        if self._config.mode == "mirrored":
            return None  # through
        served = serving_line(task) in child.log_text()
        quick = not served and time.monotonic() - child.began < _QUICK
        self._quick_ends[task] = self._quick_ends.get(task, 0) + 1 if quick else 0
        if self._quick_ends[task] >= _QUICK_ENDS:
            return self._give_up(task, f"{task} {child.end()} {_QUICK_ENDS} times without serving")
        self._tell(f"{task} {child.end()}; it is restarted, the others go on")
        self._start([task])
        return None

    def _restart_all(self, lost: Task) -> int | None:
        """Starts all servers and the chief again; an exit code where that is over."""
        first, child = self._config.first, self._children[lost]
        if lost != first:
            deadline = time.monotonic() + self._patience
            code = None
            while code is None and time.monotonic() < deadline:
                if self._signal is not None:
                    return None
                code = self._children[first].wait(_PAUSE)
            if code is not None and _is_final(code, [lost]):
                return self._final(first)
        if self._restarts >= self._max_restarts:
            return self._give_up(
                lost, f"{lost} {child.end()} after {self._restarts} restarts, the most allowed"
            )
        self._restarts += 1
        mirrored = self._config.mode == "mirrored"
        # A chief that gave up though nothing ended had no answer: maybe of a worker.
        stalled = lost == first and child.ended() in _STALLED
        again = [t for t in self._config.tasks if mirrored or stalled or t.job != "worker"]
        what = "all servers and the chief are"
        if mirrored or stalled:
            what = "all workers are" if mirrored else "all processes are"
        self._tell(
            f"{lost} {child.end()}; {what} restarted ({self._restarts} of {self._max_restarts})"
        )
        self._stop(again)
        self._start(again)
        return None

    def _elsewhere(self, task: Task) -> int | None:
        """Starts everything again at other addresses."""
        self._address_tries += 1
        if self._address_tries >= _ADDRESS_TRIES:
            return self._give_up(
                task, f"the address of a process was taken {_ADDRESS_TRIES} times, last of {task}"
            )
        self._tell(f"the address of {task} is taken; all processes are started at other ones")
        self._stop(self._children)
        self._config = _choose(*self._sizes, earlier=self._config)
        self._start(self._config.tasks)
        return None

    def _final(self, task: Task) -> int:
        """What a process' exit code means for the user."""
        child = self._children[task]
        code = child.ended() or 0
        if code:
            self._tell(f"{task} {child.end()}; {self._log_of(task)}")
        else:
            self._tell(f"{task} is done; its log: {child.log}")
        return code

    def _give_up(self, task: Task, reason: str) -> int:
        self._tell(f"{reason}; {self._log_of(task)}")
        return _DEFECT

    def _log_of(self, task: Task) -> str:
        """Where a process' log is, and its last lines."""
        child = self._children[task]
        lines = child.log_text().splitlines()[-_SHOWN:]
        return "\n".join([f"its log: {child.log}", *(f"  {line}" for line in lines)])

    def _start(self, tasks: Iterable[Task]) -> None:
        """Starts processes, a line each."""
        everybody = len(self._config.tasks)
        for task in tasks:
            # A chief's own work, such as a search or an export, is done while the others wait.
            threads = shared_threads(1 if task.job == "chief" else everybody)
            own = {
                VARIABLE: self._config.to_tf_config(task),
                LIFELINE: "1",
                LAUNCH: self._launch,
                **threads,
            }
            child = Child(
                self._command(task),
                {**os.environ, **own},
                self._folder / f"{task.job}_{task.index}.log",
            )
            self._children[task] = child
            self._tell(f"{task}  pid {child.pid}  {self._config.address(task)}  {child.log}")

    def _stop(self, tasks: Iterable[Task]) -> None:
        """Ends processes: asked first, then killed. None of them is left."""
        children = [self._children[t] for t in tasks if t in self._children]
        for child in children:
            child.ask_to_end()
        deadline = time.monotonic() + _GRACE
        for child in children:
            child.wait(max(0.0, deadline - time.monotonic()))
            child.kill()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Notes an interrupt or SIGTERM, to end all processes before this one."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number

        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_final(code: int, lost: Sequence[Task]) -> bool:
    """Whether the chief's exit code is the run's, with what was lost beside it."""
    if code == TRY_AGAIN or code < 0:  # a signal
        return False
    # A defect beside a lost server is most likely what the loss looked like to the chief.
    return not (code == _DEFECT and lost)


def _choose(workers: int, servers: int, earlier: ClusterConfig | None = None) -> ClusterConfig:
    """A cluster of this machine at free ports, none of them an earlier one's."""
    without = [] if earlier is None else [port_of(earlier.address(t)) for t in earlier.tasks]
    chiefs = 1 if servers else 0
    ports = free_ports(workers + servers + chiefs, without)
    addresses = tuple(f"{_HOST}:{port}" for port in ports)
    return ClusterConfig(
        addresses[-1] if chiefs else None,
        addresses[:workers],
        addresses[workers : workers + servers],
    )
