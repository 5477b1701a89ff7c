"""The command `wsss-ray`, as a shell calls it: help, errors, exit statuses, and what is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import REPOSITORY

from wsss_ray import cli
from wsss_ray.config import builtin
from wsss_ray.errors import JobError, Terminated


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsss_ray", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def ended(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return exit_.value.code


def test_the_help_has_a_line_for_each_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*cli.JOBS, "init", "completion"):
        assert [line for line in lines if line.startswith(f"  {name} ") and len(line.split()) > 4], name
    assert max(map(len, lines)) <= 120


@pytest.mark.processes  # importing torch starts ldconfig
@pytest.mark.parametrize("name", cli.JOBS)
def test_every_job_has_its_help_and_its_module(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: wsss-ray {name} ")
    assert "--output" in printed
    assert callable(cli.JOBS[name].load_run())


def test_the_files_for_ray_are_the_same_commands() -> None:
    assert {path.stem for path in (REPOSITORY / "jobs").glob("*.py")} == set(cli.JOBS)
    command = [sys.executable, str(REPOSITORY / "jobs/label.py"), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == call("label", "--help").stdout


def test_help_and_errors_of_flags_import_neither_ray_nor_torch() -> None:
    for arguments in (["--version"], ["--help"], ["label", "--help"], ["label", "--no-such-flag"], ["init"]):
        script = f"""
import sys
from wsss_ray import cli
try:
    cli.main({arguments})
except SystemExit:
    print({{"ray", "torch", "transformers", "pyarrow"}} & set(sys.modules), file=sys.stderr)
"""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stderr.splitlines()[-1] == "set()", arguments


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no command is given"),
        (["lable"], "unknown command `lable`. Did you mean `label`?"),
        (["label", "--no-such-flag"], "these flags cannot be used"),
        (["label", "--config", "vocc"], "no built-in configuration and no file `vocc`. Did you mean `voc`?"),
    ],
)
def test_a_wrong_command_line_ends_with_its_reason(arguments: list[str], reason: str) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert reason in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        (ValueError("no such file"), 1, "error: no such file"),
        (JobError("it broke off"), 1, "error: it broke off"),
        (KeyboardInterrupt(), 130, "interrupted: "),
        (Terminated(), 143, "interrupted: "),
        (TypeError("x s3://user:secret@bucket"), 1, "error: unexpected TypeError: x s3://***@bucket. This is a defect"),
    ],
)
def test_every_end_has_its_status_and_last_line(
    error: BaseException, status: int, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli.Job, "load_run", lambda _: fail)
    assert ended(["demo"]) == status
    printed = capsys.readouterr().err
    assert printed.splitlines()[-1].startswith(last)
    assert "secret" not in printed


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m wsss_ray --help | head -n 0; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert int(done.stdout) in (0, 128 + signal.SIGPIPE)  # 0 if the text was written before `head` ended


def test_a_signal_while_modules_are_imported_ends_with_one_line() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    script = """
import sys, time
from wsss_ray import cli
def load(job):
    print("importing", flush=True)
    time.sleep(60)
cli.Job.load_run = load
cli.main(["demo"])
"""
    command = [sys.executable, "-c", script]
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "importing\n"
            time.sleep(0.1)
            process.send_signal(number)
            assert process.stderr.read().startswith("interrupted: ")
        assert process.returncode == status


def test_a_built_in_configuration_is_listed_copied_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(["init"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in builtin.names())
    target = tmp_path / "my.yaml"
    assert ended(["init", "voc", str(target)]) == 0
    assert target.read_bytes() == (builtin.FOLDER / "voc.yaml").read_bytes()
    target.write_text("mine")
    assert ended(["init", "voc", str(target)]) == 1
    assert "exists" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert ended(["init", "vocc", str(target)]) == 1
    assert "Did you mean `voc`?" in capsys.readouterr().err


def test_a_file_and_a_name_of_a_configuration_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert builtin.find("voc") == builtin.FOLDER / "voc.yaml"
    assert builtin.find("./voc") == Path("voc")
    assert builtin.find("voc.yaml") == Path("voc.yaml")
    (tmp_path / "mine").write_text("classes: voc")
    assert builtin.find("mine") == Path("mine")
    with pytest.raises(ValueError, match="no built-in configuration and no file `yours`"):
        builtin.find("yours")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["la"], {"label"}),
        (["label", "--segmenter.mod"], {"--segmenter.model"}),
        (["label", "--config", "voc"], {"voc", "voc-paper"}),
        (["train", "--preset", "coco"], {"coco", "coco-long"}),
    ],
)
def test_bash_completes_commands_flags_and_choices(tmp_path: Path, words: list[str], expected: set[str]) -> None:
    (tmp_path / "script").write_text(call("completion", "bash").stdout)
    complete = f"""
source {tmp_path}/script
COMP_WORDS=(wsss-ray {" ".join(words)}); COMP_CWORD={len(words)}
$(complete -p wsss-ray | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    command = ["bash", "-c", complete.replace("$(complete", 'eval "$(complete', 1).replace("/\\1/')", "/\\1/')\"", 1)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected
