"""What no line of the package may do, read from its syntax trees; tests/ and benchmarks/ may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import REPOSITORY

from wsss_ray.config import LabelConfig, parse

FILES = sorted(path for folder in ("wsss_ray", "jobs") for path in (REPOSITORY / folder).rglob("*.py"))
OWN_PICKLES = {"wsss_ray/engine/ray_mapping.py", "wsss_ray/evaluation/truths.py"}
"""Files that unpickle what this run's own driver or task pickled a moment ago; users' files never get there."""


def dangers(tree: ast.AST, *, own_pickles: bool) -> Iterator[str]:
    """Every call in a module that can run what it reads, with its line."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        told = None
        if name == "torch.load" and options.get("weights_only") != "True":
            told = "torch.load without weights_only=True"
        elif name.endswith(("np.load", "numpy.load")) and options.get("allow_pickle", "False") != "False":
            told = "np.load with pickles"
        elif name in ("pickle.load", "pickle.loads", "cloudpickle.loads") and not own_pickles:
            told = "unpickling"
        elif (
            name == "yaml.load"
            and "Strict" not in options.get("Loader", "")
            and "Safe" not in options.get("Loader", "")
        ):
            told = "yaml.load without a safe loader"
        elif name in ("yaml.unsafe_load", "yaml.full_load", "eval", "exec", "os.system", "torch.hub.load"):
            told = name
        elif name.endswith("from_pretrained") and options.get("trust_remote_code", "False") != "False":
            told = "remote code"
        elif options.get("shell") == "True":
            told = "a shell"
        if told:
            yield f"{node.lineno}: {told}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_runs_what_it_reads(path: Path) -> None:
    own_pickles = str(path.relative_to(REPOSITORY)) in OWN_PICKLES
    assert list(dangers(ast.parse(path.read_text()), own_pickles=own_pickles)) == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "yaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
    ],
)
def test_the_check_sees_what_it_looks_for(code: str) -> None:
    assert list(dangers(ast.parse(code), own_pickles=False))


@pytest.mark.parametrize("text", ["!!python/object/apply:os.getcwd []", "input: !!python/object/apply:os.getcwd []"])
def test_a_tag_in_a_configuration_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse(LabelConfig, ["--config", str(tmp_path / "config.yaml"), "--output", "out"])
    assert "config.yaml:1" in capsys.readouterr().err
