"""A job's own small parent: runs the command, keeps its output and its exit code, and outlives the server.

`python -m dgviz.jobs.supervise DIRECTORY` runs what DIRECTORY/spec.json says.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from dgviz.jobs.disk import read_json, write_json
from dgviz.jobs.process import describe_process
from dgviz.jobs.reporter import JOB_VARIABLE


def main(directory: Path) -> None:
    """Run the job's command to its end and record how it ended.

    Parameters
    ----------
    directory : Path
        The job's directory.
    """
    spec = read_json(directory / "spec.json")
    environment = {**os.environ, JOB_VARIABLE: str(directory)}
    # Apart, because a command's stdout is buffered and would arrive after the last word on stderr.
    with (directory / "log.txt").open("ab") as log, (directory / "output.txt").open("ab") as output:
        try:
            process = subprocess.Popen(
                spec["command"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=spec["cwd"],
                env=environment,
            )
        except OSError as error:
            log.write(f"{error}\n".encode())
            write_json(directory / "exit.json", {"code": 127, "ended": time.time()})
            return
        write_json(directory / "command.json", describe_process(process.pid))
        code = process.wait()
    write_json(directory / "exit.json", {"code": code, "ended": time.time()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
