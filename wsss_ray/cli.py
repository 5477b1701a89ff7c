"""The command `wsss-ray`: one subcommand for each job, and the exit statuses and last lines that all of them share."""

from __future__ import annotations

import importlib
import inspect
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from wsss_ray import __version__
from wsss_ray.errors import INTERRUPTED, JobError, Terminated, one_line, suggest, unwind_on_sigterm

PROGRAM = "wsss-ray"


@dataclass(frozen=True)
class Job:
    """A subcommand that runs a job. Nothing is imported before it is needed."""

    config: str
    """Name of the configuration in `wsss_ray.config`."""
    module: str
    """Module whose function `run` takes the configuration."""

    def load_config(self) -> type[Any]:
        """Return the configuration's class."""
        return getattr(importlib.import_module("wsss_ray.config"), self.config)

    def load_run(self) -> Callable[[Any], object]:
        """Return the job's function."""
        return importlib.import_module(self.module).run


JOBS = {
    "shard": Job("ShardConfig", "wsss_ray.sharding.job"),
    "label": Job("LabelConfig", "wsss_ray.labelling.job"),
    "evaluate": Job("EvaluateConfig", "wsss_ray.evaluation.job"),
    "audit": Job("AuditConfig", "wsss_ray.audit.job"),
    "report": Job("ReportConfig", "wsss_ray.report.job"),
    "export": Job("ExportConfig", "wsss_ray.export.job"),
    "train": Job("TrainConfig", "wsss_ray.training.job"),
    "predict": Job("PredictConfig", "wsss_ray.prediction.job"),
    "pipeline": Job("PipelineConfig", "wsss_ray.pipeline.job"),
    "doctor": Job("DoctorConfig", "wsss_ray.doctor.job"),
    "demo": Job("DemoConfig", "wsss_ray.demo.run"),
}

HELP = """\
usage: wsss-ray COMMAND [--config NAME-OR-FILE] [FLAGS]

Pixel labels from image-level tags: Grounding DINO and SAM as a resumable Ray job, and a student trained on the labels.

jobs:
{jobs}

other commands:
  init        List the built-in configurations, or copy one to a file: wsss-ray init voc my.yaml
  completion  Print a completion script for a shell: wsss-ray completion bash (or zsh, fish, tcsh)

flags:
  -h, --help  Show this text; `wsss-ray COMMAND --help` shows all flags of a command.
  --version   Show the version.

examples:
  wsss-ray demo                                            # offline, with the models that the package ships
  wsss-ray shard --input photos --tags tags.csv --classes voc --output shards
  wsss-ray label --config voc --input shards --output labels --dry-run
  wsss-ray label --config voc --input shards --output labels
  wsss-ray report --images shards --labels labels --output gallery

Run a command again after an interrupt or an error: it does only what is missing.
exit status: 0 done, 1 the job did not reach its goal, 2 a wrong flag or configuration, 130 interrupt, 143 SIGTERM.
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (of this process, if `argv` is None) and exit.

    The exit status is 0 when a job reached its goal, 1 when it did not, 2 for a wrong flag or configuration, 130 after
    an interrupt and 143 after SIGTERM. Unless it is 0, the reason is the last line on standard error.
    """
    unwind_on_sigterm()
    try:
        try:
            status = _run_command(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # here rather than at the end of the process, where a closed pipe prints an error
    except BrokenPipeError as error:
        status = _end_after_closed_output(error)
    except (ValueError, OSError, JobError) as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, Terminated) as error:
        print(INTERRUPTED, file=sys.stderr, flush=True)
        status = 130 if isinstance(error, KeyboardInterrupt) else 143
    except Exception as error:  # noqa: BLE001 - the traceback is printed, with secrets masked
        status = _report_defect(error)
    raise SystemExit(status)


def _run_command(arguments: list[str]) -> int:
    """Run one command; return the exit status."""
    command, *rest = arguments or [""]
    if command in ("-h", "--help", "help"):
        print(help_text(), end="")
    elif command == "--version":
        print(f"{PROGRAM} {__version__}")
    elif command == "init":
        from wsss_ray.config import builtin  # noqa: PLC0415 - imports are what makes a command line slow

        builtin.init(rest)
    elif command == "completion":
        from wsss_ray.config import completion  # noqa: PLC0415

        print(completion.script({name: job.load_config() for name, job in JOBS.items()}, rest, program=PROGRAM))
    elif command in JOBS:
        _run_job(command, rest)
    else:
        commands = [*JOBS, "init", "completion"]
        problem = f"unknown command `{command}`.{suggest(command, commands)}" if command else "no command is given."
        return _fail(f"{problem} Valid: {', '.join(commands)}; `{PROGRAM} --help` explains them.", status=2)
    return 0


def _run_job(name: str, arguments: list[str]) -> None:
    """Read a job's configuration and run the job."""
    from wsss_ray import config  # noqa: PLC0415
    from wsss_ray.engine import logs  # noqa: PLC0415
    from wsss_ray.storage import retries  # noqa: PLC0415

    logs.configure()
    job = JOBS[name]
    parsed = config.parse(job.load_config(), arguments, program=f"{PROGRAM} {name}")
    try:
        job.load_run()(parsed)
    finally:
        if counts := retries.counted():
            print(f"storage: {retries.describe(counts)}", file=sys.stderr, flush=True)


def help_text() -> str:
    """Return the text of `wsss-ray --help`: each job with the first line of its configuration's docstring."""
    first_lines = {name: (inspect.getdoc(job.load_config()) or "").splitlines()[0] for name, job in JOBS.items()}
    return HELP.format(jobs="\n".join(f"  {name:<10}  {line}" for name, line in first_lines.items()))


def _fail(reason: str, *, status: int = 1) -> int:
    """Print the reason as the last line, secrets masked; return the exit status."""
    from wsss_ray.storage.redaction import masked  # noqa: PLC0415

    print(f"error: {one_line(masked(reason))}", file=sys.stderr, flush=True)
    return status


def _report_defect(error: Exception) -> int:
    """Print the traceback of an unexpected error, secrets masked, and its last line; return the exit status."""
    from wsss_ray.storage.redaction import masked  # noqa: PLC0415

    print(masked("".join(traceback.format_exception(error))), end="", file=sys.stderr, flush=True)
    return _fail(f"unexpected {type(error).__name__}: {error}. This is a defect; the lines above say where.")


def _end_after_closed_output(error: BrokenPipeError) -> int:
    """Return the exit status of a process whose reader (`| head`) has closed the pipe, or of another broken pipe."""
    poll = select.poll()
    poll.register(1, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return _fail(str(error))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the flush at the end of the process needs somewhere to write
    return 128 + signal.SIGPIPE
