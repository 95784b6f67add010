"""Where tasks are carried out when one machine is not enough: a Ray cluster, https://docs.ray.io.

Ray is optional, and imported here alone, when it is asked for. Its scheduler chooses a node by cores, GPUs and bytes
of memory, and begins a task anew elsewhere when it loses one. Tensors are read and outputs written where tasks run:
every node must see the same files under the same paths.
"""

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dgviz
from dgviz.device import is_gpu
from dgviz.errors import ClusterError
from dgviz.files import cache_dir
from dgviz.jobs.executor import Task
from dgviz.jobs.worker import RemoteError
from dgviz.packages import need
from dgviz.words import size

LOCAL = "local"
"""In the place of an address: a cluster of this machine alone, which ends with its user."""
RETRIES = 3
"""How often a task begins anew whose node or process was lost."""
_PROCESS_BYTES = 300 * 2**20  # of a process that has imported torch
_STORE_BYTES = 256 * 2**20  # what passes between processes is small
_LOOK = 1.0  # seconds between two looks at the nodes
_FOLDER = "PWD"
_HEAD = 4096  # bytes of a file that are compared


@dataclass(eq=False)
class _Call:
    """A task that was handed over to Ray, and all that is needed to hand it over again."""

    function: Any
    task: Task
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    needs: Mapping[str, float]
    future: Future | None = None
    """Where the result goes; none for a generator."""
    reference: Any = None
    """What Ray calls it."""
    begun: float = 0.0
    starts: int = 0
    taken: int = 0
    """How many items of a generator were passed on."""
    skip: int = 0
    """How many of those are to come once more."""


class RayCluster:
    """The nodes of a Ray cluster, each task on one core, or with one GPU where there are any.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of a cluster that runs, ``"auto"`` for that of this node, or `LOCAL`.
    device : str
        "auto", "cpu" or "cuda"; which GPU of a node it is, Ray says.
    count : int, optional
        How many tasks run at once; by default as many as there are cores, or GPUs.
    files : iterable of Path
        What every node must see, as it is here.
    patience : float
        Seconds that a task waits for a node which could take it, before it is given up.
    lost : float
        Seconds in which nothing runs on any node, until a task that is not done begins anew.

    Raises
    ------
    ClusterError
        If Ray is not installed, nothing answers at the address, or a node lacks a file or has other versions.
    """

    spread = True

    def __init__(
        self,
        address: str,
        device: str = "auto",
        count: int | None = None,
        files: Iterable[Path] = (),
        patience: float = 60.0,
        lost: float = 30.0,
    ) -> None:
        self._ray = _import_ray()
        self._own = _connect(self._ray, address, count)
        self._running: dict[Any, _Call] = {}  # by what Ray calls it
        self._idle_since: float | None = None  # when no node was seen at work any more
        self._changed, self._closed = threading.Condition(), False
        self._failure: ClusterError | None = None
        self._tasks: list[tuple[Task, Any]] = []  # and where they are stored, once for the cluster
        self._patience, self._lost, self._largest = patience, lost, 0.0  # bytes of the largest node, as last seen
        try:
            self.device, self.count = self._choose(device, count)
            self.threads, self.ahead = None if is_gpu(self.device) else 1, 2 * self.count
            self._refuse_others(files)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, name="dgviz-cluster", daemon=True).start()

    def submit(self, task: Task, *arguments: Any, memory: int = 0, **keywords: Any) -> Future:
        """Have a task carried out on a node that has room for it."""
        future: Future = Future()
        self._start(_Call(_perform, task, arguments, keywords, self._needs(memory), future))
        return future

    def stream(self, task: Task, *arguments: Any, memory: int = 0) -> "_Stream":
        """Have a task carried out that is a generator, at once; return what it yields, as it comes.

        One that is lost begins anew, and what was taken before is left out: it must yield the same again.
        """
        call = _Call(_iterate, task, arguments, {}, self._needs(memory))
        self._start(call)
        return _Stream(self, call)

    def close(self) -> None:
        """End what runs and give up what waits."""
        with self._changed:
            self._closed = True
            running, self._running = self._running, {}
            self._changed.notify_all()
        for call in running.values():
            self._cancel(call.reference)
            if call.future is not None:
                call.future.cancel()
        if self._own:
            self._ray.shutdown()

    def _start(self, call: _Call) -> None:
        """Hand a task over to Ray."""
        remote = self._ray.remote(call.function).options(
            num_cpus=call.needs["CPU"],
            num_gpus=call.needs.get("GPU", 0),
            memory=call.needs.get("memory") or None,
            max_retries=RETRIES,
            **({"num_returns": "streaming"} if call.future is None else {}),
        )
        settings = {"DGVIZ_CACHE_DIR": str(cache_dir()), _FOLDER: str(Path.cwd())}
        reference = remote.remote(
            [self._stored(call.task)], settings, (self.device, *call.arguments), dict(call.keywords)
        )
        with self._changed:
            call.reference, call.begun, call.starts = reference, time.monotonic(), call.starts + 1
            self._running[reference] = call
        if call.future is not None:
            reference.future().add_done_callback(lambda ended: self._end(reference, ended))

    def _stored(self, task: Task) -> Any:
        """Return where the cluster keeps a task; it is sent once."""
        for known, reference in self._tasks:
            if known is task:
                return reference
        self._tasks.append((task, self._ray.put(task)))
        return self._tasks[-1][1]

    def _needs(self, memory: int) -> dict[str, float]:
        """Return what a node must have; bytes in powers of two, for tasks of one kind share processes.

        A task that is larger than every node has the largest to itself.
        """
        needs: dict[str, float] = {"CPU": 1}
        if is_gpu(self.device):
            needs["GPU"] = 1
        if memory:
            needs["memory"] = int(min(self._largest, 2 ** (memory + _PROCESS_BYTES - 1).bit_length()))
        return needs

    def _end(self, reference: Any, ended: Future) -> None:
        """Pass on what came of a task."""
        with self._changed:
            call = self._running.pop(reference, None)
        if call is None or not call.future.set_running_or_notify_cancel():  # closed, given up, or begun anew
            return
        error = ended.exception()
        if error is None:
            call.future.set_result(ended.result())
        else:
            call.future.set_exception(self._own_error(error))

    def _next(self, call: _Call) -> Any:
        """Return the next item of a generator that runs elsewhere, when it is there."""
        while True:
            with self._changed:
                if self._failure:
                    raise self._failure
                if self._closed or call.reference not in self._running:
                    raise CancelledError("the task was ended")
            ready, _ = self._ray.wait([call.reference], timeout=_LOOK)
            if ready:
                break
            if self._is_lost(call):
                self._begin_again(call)
        try:
            return self._ray.get(next(call.reference))
        except BaseException as error:
            self._drop(call)
            raise (self._own_error(error) if isinstance(error, self._ray.exceptions.RayError) else error) from None

    def _is_lost(self, call: _Call) -> bool:
        """Return whether Ray has forgotten a task: it is not done, and nothing runs anywhere.

        Seen with Ray 2 when a node dies: now and then a generator that ran there is neither begun anew nor failed.
        """
        idle = self._idle_since
        return idle is not None and time.monotonic() - max(idle, call.begun) > self._lost

    def _begin_again(self, call: _Call) -> None:
        """Hand a task over once more that was lost; raise if it was too often."""
        if not self._drop(call):
            return  # it has ended meanwhile
        if call.starts > RETRIES:
            raise ClusterError(
                f"the cluster lost a task {call.starts} times without a word; look at its nodes and their memory"
            )
        logging.getLogger(__name__).warning("the cluster lost a task without a word; it begins anew")
        call.skip = call.taken
        self._start(call)

    def _drop(self, call: _Call) -> bool:
        """End a task; return whether it was still running."""
        with self._changed:
            known = self._running.pop(call.reference, None)
        if known is not None and not (call.future is None and call.reference.is_finished()):
            self._cancel(call.reference)
        return known is not None

    def _cancel(self, reference: Any) -> None:
        with contextlib.suppress(Exception):  # it has ended, or the cluster has
            self._ray.cancel(reference, force=True)

    def _own_error(self, error: BaseException) -> BaseException:
        """Return what a task raised, or why Ray has given it up, in a sentence."""
        known = self._ray.exceptions
        if isinstance(error, known.TaskCancelledError):
            return CancelledError(str(error))
        if not isinstance(error, known.RayTaskError):
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            return ClusterError(
                f"the cluster lost a task and gave it up after {RETRIES} more attempts ({said}); look at its nodes "
                "and their memory"
            )
        cause = error.cause
        if not isinstance(cause, Exception) or isinstance(cause, known.RayError):
            cause = RemoteError(str(error).strip().splitlines()[-1])
        cause.add_note("Raised on a node of the cluster:\n" + str(error).rstrip())
        return cause

    def _watch(self) -> None:
        """Begin lost tasks anew; give up when one needs a node that is not there any more.

        Ray would wait for ever in both cases.
        """
        since: float | None = None
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, _LOOK):
                    return
                calls = list(self._running.values())
            try:
                nodes, idle = self._nodes(), self._is_idle()
            except ClusterError:
                nodes, idle = [], False
            self._idle_since = (self._idle_since or time.monotonic()) if idle else None
            for call in calls:
                if call.future is not None and self._is_lost(call):  # who reads a generator looks himself
                    try:
                        self._begin_again(call)
                    except ClusterError as error:
                        _fail(call.future, error)
            lacking = next((call.needs for call in calls if not any(_has(node, call.needs) for node in nodes)), None)
            since = None if lacking is None else since or time.monotonic()
            if since is not None and time.monotonic() - since > self._patience:
                self._give_up(lacking)
                return

    def _is_idle(self) -> bool:
        """Return whether all cores, GPUs and memory of the cluster are free."""
        try:
            has, free = self._ray.cluster_resources(), self._ray.available_resources()
        except Exception as error:
            raise ClusterError(f"the cluster does not answer any more: {error}") from None
        return bool(has) and all(free.get(name, 0) >= has.get(name, 0) for name in ("CPU", "GPU", "memory"))

    def _give_up(self, lacking: Mapping[str, float]) -> None:
        """Fail all that runs."""
        parts = [f"{lacking[name]:g} {name}" for name in ("CPU", "GPU") if name in lacking]
        parts += [size(lacking["memory"])] if "memory" in lacking else []
        self._failure = ClusterError(
            f"no node of the cluster has {' and '.join(parts)} any more; start one and repeat the command"
        )
        with self._changed:
            running, self._running = self._running, {}
        for call in running.values():
            self._cancel(call.reference)
            if call.future is not None:
                _fail(call.future, self._failure)

    def _nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are there."""
        try:
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
        except Exception as error:
            raise ClusterError(f"the cluster does not answer any more: {error}") from None
        self._largest = max((node["Resources"].get("memory", 0) for node in nodes), default=0)
        return nodes

    def _choose(self, device: str, count: int | None) -> tuple[str, int]:
        """Return the device that tasks compute on, and how many do so at once."""
        has = {name: int(sum(node["Resources"].get(name, 0) for node in self._nodes())) for name in ("CPU", "GPU")}
        if device == "auto":
            device = "cuda" if has["GPU"] else "cpu"
        kind = "CPU" if device == "cpu" else "GPU"
        if not has[kind]:
            raise ClusterError(
                f"the cluster has no {kind} that Ray gives out ({has['CPU']} CPUs, {has['GPU']} GPUs on "
                f"{len(self._nodes())} nodes): start nodes with some, or choose another --device"
            )
        return "cpu" if kind == "CPU" else "cuda:0", min(has[kind], count or has[kind])

    def _refuse_others(self, files: Iterable[Path]) -> None:
        """Refuse a node that does not see the same files, or has other versions; a mark tells caches apart."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        cache = cache_dir()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, prefix="seen-by-all-") as mark:
            mark.write(os.urandom(16))
            mark.flush()
            paths = [str(path) for path in (*sorted(set(files)), mark.name)]
            here = look(paths)
            nodes = [node for node in self._nodes() if _has(node, self._needs(0))]
            function = self._ray.remote(look).options
            places = (NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes)
            looks = [function(num_cpus=0, max_retries=0, scheduling_strategy=at).remote(paths) for at in places]
            for node, reference in zip(nodes, looks, strict=True):
                try:
                    there = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    if node["NodeID"] not in (left["NodeID"] for left in self._nodes()):
                        continue  # it was lost meanwhile, and takes no part
                    last = str(error).strip().splitlines()[-1]
                    raise ClusterError(
                        f"{_name(node)} cannot take part: {last}; the same dgviz must be installed there"
                    ) from None
                _compare(node, here, there)


class _Stream:
    """What a generator yields that runs elsewhere."""

    def __init__(self, cluster: RayCluster, call: _Call) -> None:
        self._cluster, self._call = cluster, call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            item = self._cluster._next(self._call)
            if not self._call.skip:
                self._call.taken += 1
                return item
            self._call.skip -= 1

    def close(self) -> None:
        """End it."""
        self._cluster._drop(self._call)


def _fail(future: Future, error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _import_ray() -> Any:
    """Return the library, set up to be quiet and to tell nobody of its use."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    need("--ray", "ray")
    import ray
    import ray.exceptions

    return ray


def _connect(ray: Any, address: str, count: int | None) -> bool:
    """Connect this process to a cluster, or start one; return whether that ends with the executor."""
    if "://" in address:
        raise ClusterError(
            f"--ray {address} is the address of a client: run on a node of the cluster, and give HOST:PORT or auto"
        )
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (LOCAL, "auto", there):
            raise ClusterError(f"--ray is {address}, and this process is connected to {there} already")
        return False
    if address not in (LOCAL, "auto"):
        _refuse_silent(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {"num_cpus": count, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, **quiet, **own, _node_ip_address="127.0.0.1")
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # of many kinds
        raise _unusable(address, error) from None
    return True


def _refuse_silent(address: str) -> None:
    """Refuse an address where nobody listens, for which Ray would wait minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise _unusable(address, error) from None


def _unusable(address: str, error: Exception) -> ClusterError:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ClusterError(
        f"no Ray cluster can be used at {address} ({said}); start one by `ray start --head`, or give --ray local"
    )


def look(paths: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the versions here, and what tells each file from another of its name; nothing for one that is not there.

    Times and inodes are not compared: nodes need not agree on them.
    """
    versions = {"dgviz": dgviz.__version__, "torch": importlib.metadata.version("torch")}
    seen = {}
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                digest = hashlib.sha256(file.read(_HEAD)).hexdigest()[:16]
                seen[path] = f"{os.fstat(file.fileno()).st_size} bytes, begins with {digest}"
        except OSError as error:
            seen[path] = f"not there: {error.strerror}"
    return versions, seen


def _compare(node: Mapping[str, Any], here: tuple[dict, dict], there: tuple[dict, dict]) -> None:
    """Refuse a node where something is not as it is here."""
    for name, version in here[0].items():
        if there[0][name] != version:
            raise ClusterError(
                f"{_name(node)} has {name} {there[0][name]}, and {version} is here: results would differ; install "
                "the same everywhere"
            )
    for path, seen in here[1].items():
        if there[1][path] != seen:
            raise ClusterError(
                f"{_name(node)} does not see {path} as it is here ({there[1][path]} there, {seen} here): every node "
                "needs the same files under the same paths"
            )


def _name(node: Mapping[str, Any]) -> str:
    return f"the node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"


def _has(node: Mapping[str, Any], needs: Mapping[str, float]) -> bool:
    """Return whether a node could take a task, if nothing else ran there."""
    return all(node["Resources"].get(name, 0) >= amount for name, amount in needs.items())


_known: dict[str, Task] = {}  # tasks that this process of a node was given


def _taken(stored: list[Any], settings: Mapping[str, str]) -> Task:
    """Return a task, which comes to a process once."""
    import ray

    settings = dict(settings)
    with contextlib.suppress(OSError):
        os.chdir(settings.pop(_FOLDER))  # relative paths mean the same as where the command runs
    os.environ.update(settings)
    (reference,) = stored
    if reference.hex() not in _known:
        _known[reference.hex()] = ray.get(reference)
    return _known[reference.hex()]


def _perform(
    stored: list[Any], settings: Mapping[str, str], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Any:
    """Carry a task out; runs on a node."""
    return _taken(stored, settings)(*arguments, **keywords)


def _iterate(
    stored: list[Any], settings: Mapping[str, str], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Iterator[Any]:
    """Carry a task out that is a generator; runs on a node."""
    for item in _taken(stored, settings)(*arguments, **keywords):  # noqa: UP028 - Ray sends to what is yielded from
        yield item
