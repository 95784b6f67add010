"""Work outside the page's process: one warm worker, and detached jobs that outlive the server.

Nothing here knows what is computed: of dgviz only commands and files are known.  POSIX only (Linux, macOS).
"""

from dgviz.jobs.detached import Job, JobError, JobRunningError, list_jobs, start_job
from dgviz.jobs.reporter import JobReporter, Progress
from dgviz.jobs.worker import RemoteError, Superseded, Worker, WorkerDied

__all__ = [
    "Job",
    "JobError",
    "JobReporter",
    "JobRunningError",
    "Progress",
    "RemoteError",
    "Superseded",
    "Worker",
    "WorkerDied",
    "list_jobs",
    "start_job",
]
