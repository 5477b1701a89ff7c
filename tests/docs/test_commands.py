"""Commands, flags and configurations in the documents are those that the jobs take."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from documents import DOCUMENTS, NAMES, blocks, commands, inline_code, jobs_commands
from repository import REPOSITORY

from wsss_ray.classes import ClassSet
from wsss_ray.cli import JOBS
from wsss_ray.config import StorageConfig, builtin, parse
from wsss_ray.datasets.manifest import read_manifest

FLAG = re.compile(r"(?<![\w-])--([a-z][\w.-]*)")
OTHERS_FLAGS = {
    *("working-dir", "metrics-export-port", "entrypoint-num-gpus", "block", "help", "version", "config", "logdir"),
    *("build-arg", "port", "dashboard-port"),
}
"""Of Ray, Docker, TensorBoard and the command itself."""


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_commands_of_jobs_are_accepted(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, arguments in jobs_commands(path):
        if name == "init":
            assert arguments[0] in builtin.names(), arguments
        elif name != "completion":
            check_command(name, arguments, capsys)


def check_command(name: str, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Parse a command as the job does; `my.yaml` is a configuration that a reader has."""
    assert name in JOBS, f"wsss-ray {name}: there is no such command"
    try:
        parse(JOBS[name].load_config(), list(arguments), program=f"wsss-ray {name}")
    except SystemExit:
        pytest.fail(f"wsss-ray {name} {' '.join(arguments)}: {''.join(capsys.readouterr())}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "a"],
        ["--input", "a", "--output", "b", "--limits", "3"],
        ["--config", "vok", "--input", "a", "--output", "b"],
        ["--input", "a", "--output", "b", "--limit", "many"],
    ],
)
def test_a_wrong_command_is_noticed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check_command("label", ["--input", "a", "--output", "b", "--limit", "3"], capsys)
    with pytest.raises(pytest.fail.Exception):
        check_command("label", arguments, capsys)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_flags_in_the_text_exist(path: Path) -> None:
    every = {flag for job in JOBS.values() for flag in flags(job.load_config())}
    for code in inline_code(path):
        words = code.split()
        of_job = words[0] == "wsss-ray" and len(words) > 1 and words[1] in JOBS
        known = set(flags(JOBS[words[1]].load_config())) if of_job else every
        if words[0] in ("wsss-ray", "python") or words[0].startswith("--"):
            unknown = set(FLAG.findall(code)) - known - OTHERS_FLAGS
            assert not unknown or not_a_job(words), f"`{code}`: no flag {', '.join(sorted(unknown))}"
        if words[0] == "wsss-ray" and len(words) > 1:
            assert words[1] in {*JOBS, "init", "completion"} or words[1].startswith("--") or words[1].isupper(), code


def not_a_job(words: Sequence[str]) -> bool:
    """Return whether a command is another Python program's, and name its flags in its source."""
    if words[0] != "python":
        return False
    source = source_of(words)
    return all(flag in source for flag in words if flag.startswith("--"))


def source_of(words: Sequence[str]) -> str:
    """Return the source of the program that `python ...` runs, and of the modules beside it, which may parse flags."""
    program = REPOSITORY / (f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1])
    assert program.exists(), " ".join(words)
    return "".join(path.read_text() for path in program.parent.glob("*.py"))


def flags(config: type) -> Iterator[str]:
    """Yield the flags of a configuration, without the leading dashes."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(hints[field.name]):
            yield from (f"{name}.{flag}" for flag in flags(typing.cast(type, hints[field.name])))
        else:
            yield name
            if hints[field.name] is bool:
                yield f"no-{name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_other_programs_and_targets_exist(path: Path) -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert phony
    targets = phony[1].split()
    for words in [*commands(path), *(code.split() for code in inline_code(path))]:
        if words[0] == "make" and len(words) > 1:
            assert words[1] in targets, words
        if words[0] == "python" and len(words) > 1 and words[1] != "-c":
            source = source_of(words)
            for flag in words:
                if flag.startswith("--") and not words[1].startswith("jobs/"):
                    assert f'"{flag}"' in source, f"{' '.join(words)}: no flag {flag}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_configurations_in_the_text_exist(path: Path) -> None:
    names = [name for code in inline_code(path) for name in re.findall(r"--config ([\w-]+)(?![\w./-])", code)]
    names += [code for code in inline_code(path) if re.fullmatch(r"(?:gpu|pipeline)-\w+|(?:voc|coco)-paper", code)]
    assert set(names) <= set(builtin.names()), names


def test_the_built_in_configurations_are_described() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    assert [name for name in builtin.names() if f"`{name}`" not in text and f"--config {name}" not in text] == []


def test_examples_of_files_can_be_read(tmp_path: Path) -> None:
    kinds = {"csv": "tags.csv", "json": "tags.jsonl", "yaml": "classes.yaml"}
    (page,) = [path for path in DOCUMENTS if path.name == "data.md"]
    read = []
    for block in blocks(page):
        if block.language in kinds:
            file = tmp_path / kinds[block.language]
            file.write_text(block.text)
            if block.language == "yaml":
                read.append([entry.name for entry in ClassSet.load(str(file)).classes])
            else:
                read.append([(entry.path, entry.tags) for entry in read_manifest(str(file), StorageConfig())])
    table, lines, classes = read
    assert table[0] == lines[0] == ("pets/a.jpg", ("dog", "person"))
    assert table[-1] == lines[-1] == ("street.jpg", ())
    assert classes == ["hedgehog", "wheelbarrow", "garden table"]
