"""A job's own small parent: runs the command, keeps its output and its exit code, and outlives the server.

`python -m dgviz.jobs.supervise DIRECTORY` runs what DIRECTORY/spec.json says.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from dgviz.files import read_record, write_json
from dgviz.jobs.process import HEARTBEAT, describe_process
from dgviz.jobs.reporter import JOB_VARIABLE

_NICE = 5  # of 19: whoever clicks comes first, and a job still gets on where the machine is busy with others
# Threads that wait for each other sleep: at a lower priority, spinning would take the time that the last one needs.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}


def yield_processor() -> None:
    """Let pages and what they ask for come before this process and what it starts.

    Linux may share the processor out by session before it looks at nice values (`man 7 sched`, autogroup), and a job
    leads a session of its own: that has a nice value too.
    """
    os.nice(_NICE)
    with suppress(OSError):  # macOS, or a kernel without it
        Path("/proc/self/autogroup").write_text(str(_NICE), encoding="ascii")


def main(directory: Path) -> None:
    """Run the job's command to its end and record how it ended."""
    yield_processor()
    spec = read_record(directory / "spec.json", "command", "cwd")
    environment = {**_WAITING, **os.environ, JOB_VARIABLE: str(directory)}
    # Apart, because a command's stdout is buffered and would arrive after the last word on stderr.
    with (directory / "log.txt").open("ab") as log, (directory / "output.txt").open("ab") as output:
        try:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": log}
            process = subprocess.Popen(spec["command"], **streams, cwd=spec["cwd"], env=environment)
        except OSError as error:
            log.write(f"{error}\n".encode())
            code = 127
        else:
            write_json(directory / "command.json", describe_process(process.pid))
            code = wait_for_end(process, directory / "alive")
    # The log is closed by now: whoever sees the exit code finds the last words too.
    write_json(directory / "exit.json", {"code": code, "ended": time.time()})


def wait_for_end(process: subprocess.Popen, alive: Path) -> int:
    """Return the exit code of a process, touching a file while it runs."""
    while True:
        try:
            return process.wait(timeout=HEARTBEAT)
        except subprocess.TimeoutExpired:
            with suppress(OSError):  # a job that was forgotten from outside, or a full disk
                os.utime(alive)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
