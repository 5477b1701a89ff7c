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


def test_options_of_another_type_are_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = parse(LabelConfig, write(tmp_path, "detector:\n  options: {size: 3, rate: 0.5, name: a, fast: true}\n"))
    assert config.detector.options == {"size": 3, "rate": 0.5, "name": "a", "fast": True}
    with pytest.raises(SystemExit):
        parse(LabelConfig, write(tmp_path, "detector:\n  options:\n    size: [1]\n"))
    assert "config.yaml:3: `detector.options.size` is (1,): it must be text or a" in capsys.readouterr().err


def test_required_fields_may_come_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("input: a\noutput: b\n")
    assert parse(LabelConfig, ["--config", str(path)]).output == "b"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("segmenter:\n  batchsize: 3\n", 2, "unknown key `segmenter.batchsize`. Did you mean `segmenter.batch_size`?"),
        ("clases: voc\n", 1, "Did you mean `classes`?"),
        ("classes: demo\nclasses: voc\n", 2, "`classes` is given twice in a configuration, first on line 1"),
        ("detector:\n  box_threshold: 0.3\n  box-threshold: 0.9\n", 3, "`detector.box_threshold` is given twice"),
        ("png: true\nlimit: many\n", 2, "`limit` is 'many': it must be a whole number or null"),
        ("limit: yes\n", 1, "`limit` is True"),
        ("detector:\n  box_threshold: '0.4'\n", 2, "`detector.box_threshold` is '0.4': it must be a number"),
        ("detector:\n  mode: parent\n  box_threshold: 2\n", 3, "DetectorConfig.box_threshold is 2.0: it must be at"),
        ("png: true\nplacement: both\n", 2, "`placement` is 'both': it must be one of fused, split"),
        ("segmenter:\n  sha256: 5\n", 2, "`segmenter.sha256` is 5: it must be text or null"),
        ("segmenter: 3\n", 1, "`segmenter` must hold `key: value` lines, not `3`"),
        ("detector: {model: [a, [b]]}\n", 1, "an item of `detector.model` must be a value, not a list"),
        ("detector: {model: {a: b}}\n", 1, "`detector.model` must be a value, not a mapping"),
        ("input: 2014-01-01\n", 1, "YAML reads `2014-01-01` as a date: put `input` in quotes"),
        ("- a\n", 1, "must hold `key: value` lines"),
        ("input: b\na: [\n", 3, "not valid YAML"),
        (
            "png: true\ninput: !!python/object/apply:os.getcwd []\n",
            2,
            "not a value of the tag `tag:yaml.org,2002:python",
        ),
        ("png: true\ninput: !!python/name:os.getcwd x\n", 2, "`input` cannot be read"),
        ("png: true\n[1, 2]: 3\n", 2, "a key must be text, not a list"),
        ("png: true\n1: 3\n", 2, "put a key in quotes"),
        ("a: &a {png: true}\n<<: *a\n", 2, "`<<` is not supported"),
        (f"png: true\nlimit: {'9' * 5000}\n", 2, "`limit` cannot be read"),
        (f"png: true\ninput: {'[' * 5000}{']' * 5000}\n", 2, "more than 20 levels are nested"),
    ],
)
def test_a_bad_file_is_refused_by_line_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: int, reason: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(LabelConfig, write(tmp_path, text))
    assert ended.value.code == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(f"error: {tmp_path}/config.yaml:{line}: ")
    assert reason in printed
    assert len(printed) < 1000


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_bytes("classes: voc\n".encode("utf-16"))
    with pytest.raises(SystemExit):
        parse(LabelConfig, ["--config", str(tmp_path / "config.yaml")])
    assert "config.yaml: not UTF-8 text" in capsys.readouterr().err


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert parse(LabelConfig, write(tmp_path, "# nothing\n")) == parse(LabelConfig, REQUIRED)


def test_the_line_of_the_later_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("detector:\n  box_threshold: 0.2\n")
    (tmp_path / "b.yaml").write_text("detector: {box_threshold: 7}\n")
    for names, fault in ((("a", "b"), "b.yaml:1: "), (("b", "a"), "")):
        flags = [flag for name in names for flag in ("--config", str(tmp_path / f"{name}.yaml"))]
        if fault:
            with pytest.raises(SystemExit):
                parse(LabelConfig, [*flags, *REQUIRED])
            assert fault in capsys.readouterr().err
        else:
            assert parse(LabelConfig, [*flags, *REQUIRED]).detector.box_threshold == 0.2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config"], "--config needs a name or a file"),
        (["--config", "nowhere.yaml"], "cannot read the configuration nowhere.yaml"),
        ([*REQUIRED, "--segmenter.bach-size", "3"], "--segmenter.batch-size"),
        ([*REQUIRED, "--detector.box-threshold", "2"], "at"),
        (["--input", "in"], "--output"),
        (["--config", "s3://bucket/a.yaml"], "--config takes a name or a local file"),
    ],
)
def test_bad_flags_say_what_is_valid(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(LabelConfig, arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert told in printed.err + printed.out


@pytest.mark.parametrize("flag", ["--config", "--input", "--no-such-flag"])
def test_no_error_shows_a_password(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit):
        parse(LabelConfig, [*REQUIRED, flag, "s3://K:SECRET@bucket/a.yaml"])
    printed = capsys.readouterr()
    assert "must not hold a user or password" in printed.err
    assert "SECRET" not in (printed.err + printed.out).replace("AWS_SECRET_ACCESS_KEY", "")


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
    assert "bad.yaml:1: unknown key `detector.box_treshold`" in capsys.readouterr().err


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
