"""Configuration as users write it: YAML, then flags, and clear words for what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wsss_ray.config import LabelConfig, parse

REQUIRED = ["--input", "in", "--output", "out"]


def write(folder: Path, text: str) -> list[str]:
    path = folder / "config.yaml"
    path.write_text(text)
    return ["--config", str(path), *REQUIRED]


def test_flags_win_over_yaml_and_both_spellings_work(tmp_path: Path) -> None:
    arguments = write(tmp_path, "segmenter:\n  batch-size: 3\n  boxes_per_chunk: 5\ndetector: {box_threshold: 0.1}\n")
    config = parse(LabelConfig, [*arguments, "--segmenter.batch_size", "8", "--detector.class-nms", "0.5"])
    assert config.segmenter.batch_size == 8
    assert config.segmenter.boxes_per_chunk == 5
    assert config.detector.class_nms == 0.5
    assert config.input == "in"


def test_required_fields_may_come_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("input: a\noutput: b\n")
    assert parse(LabelConfig, ["--config", str(path)]).output == "b"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("segmenter:\n  batchsize: 3\n", "unknown key `segmenter.batchsize`. Did you mean `segmenter.batch_size`?"),
        ("clases: voc\n", "Did you mean `classes`?"),
        ("classes: demo\nclasses: voc\n", "`classes` is given twice"),
        ("detector: {box_threshold: 0.3, box_threshold: 0.9}\n", "`box_threshold` is given twice"),
        ("limit: many\n", "`limit: 'many'`"),
        ("detector:\n  box_threshold: '0.4'\n", "`detector.box_threshold: '0.4'`"),
        ("detector:\n  box_threshold: 2\n", "DetectorConfig.box_threshold is 2.0: it must be at least 0 and below 1"),
        ("fusion: {paint: last}\n", "fusion.paint"),
        ("segmenter: 3\n", "`segmenter` must hold `key: value` lines"),
        ("- a\n", "must hold `key: value` lines"),
        ("a: [\n", "is not valid YAML"),
        ("input: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_by_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(LabelConfig, write(tmp_path, text))
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config"], "--config needs a name or a file"),
        (["--config", "nowhere.yaml"], "cannot read the configuration nowhere.yaml"),
        ([*REQUIRED, "--segmenter.bach-size", "3"], "--segmenter.batch-size"),
        ([*REQUIRED, "--detector.box-threshold", "2"], "at"),
        (["--input", "in"], "--output"),
    ],
)
def test_bad_flags_say_what_is_valid(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(LabelConfig, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert told in printed.err + printed.out


@pytest.mark.parametrize("gpu", ["t4", "a100", "h100"])
@pytest.mark.parametrize("name", ["voc", "coco", "coco-paper"])
def test_a_later_file_wins_field_by_field(name: str, gpu: str) -> None:
    files = ["--config", name, f"--config=gpu-{gpu}"]
    config = parse(LabelConfig, [*files, "--input", "in", "--output", "out", "--segmenter.batch-size", "5"])
    alone = parse(LabelConfig, [*files[:2], "--input", "in", "--output", "out"])
    assert config.segmenter.precision == {"t4": "float16", "a100": "bfloat16", "h100": "bfloat16"}[gpu]
    assert config.segmenter.batch_size == 5
    assert (config.classes, config.segmenter.sha256) == (alone.classes, alone.segmenter.sha256)
    assert config.detector.resize == alone.detector.resize


def test_the_file_at_fault_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.yaml").write_text("classes: voc")
    (tmp_path / "bad.yaml").write_text("detector: {box_treshold: 0.3}")
    with pytest.raises(SystemExit):
        parse(LabelConfig, ["--config", str(tmp_path / "good.yaml"), "--config", str(tmp_path / "bad.yaml")])
    assert "bad.yaml: unknown key `detector.box_treshold`" in capsys.readouterr().err


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """A section."""

    place: str
    """Needed."""
    size: int = 1
    """A size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """A configuration whose section has defaults of its own."""

    inner: Inner = dataclasses.field(default_factory=lambda: Inner(place="here", size=5))
    """A section."""


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("", [], ("here", 5)),
        ("inner: {size: 7}", [], ("here", 7)),
        ("inner: {place: there}", [], ("there", 5)),
        ("inner: {size: 7}", ["--inner.size", "8", "--inner.place", "x"], ("x", 8)),
    ],
)
def test_a_section_keeps_its_own_defaults(
    tmp_path: Path, text: str, flags: list[str], expected: tuple[str, int]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    inner = parse(Outer, ["--config", str(tmp_path / "c.yaml"), *flags]).inner
    assert (inner.place, inner.size) == expected
