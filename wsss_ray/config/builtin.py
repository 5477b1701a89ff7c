"""The configurations that the package ships, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsss_ray.addresses import shown
from wsss_ray.errors import suggest

FOLDER = Path(__file__).parent / "presets"


def names() -> tuple[str, ...]:
    """Return the names of all built-in configurations."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find(name_or_path: str) -> Path:
    """Return the file that `--config` names: a built-in configuration, or a path.

    Raises:
        ValueError: it is neither; near matches and the built-in names are listed.
    """
    if "://" in name_or_path:
        raise ValueError(f"--config takes a name or a local file, not an address such as {shown(name_or_path)}.")
    path = Path(name_or_path)
    is_name = path.suffix == "" and path.name == name_or_path
    if is_name and name_or_path in names():
        return FOLDER / f"{name_or_path}.yaml"
    if not is_name or path.exists():
        return path
    raise ValueError(
        f"there is no built-in configuration and no file `{name_or_path}`.{suggest(name_or_path, names())} Built in: "
        f"{', '.join(names())}."
    )


def init(arguments: Sequence[str]) -> None:
    """List the built-in configurations, or copy one to a new file (`NAME [FILE]`, by default NAME.yaml).

    Raises:
        ValueError: there is no such configuration, or the file exists.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_listing())
        return
    name, *rest = arguments
    if len(rest) > 1 or name.startswith("-"):
        raise ValueError("usage: wsss-ray init [NAME [FILE]]")
    if name not in names():
        raise ValueError(
            f"there is no built-in configuration `{name}`.{suggest(name, names())} Valid: {', '.join(names())}."
        )
    target = Path(rest[0] if rest else f"{name}.yaml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    except FileExistsError:
        raise ValueError(f"{target} exists: give another name, or remove it.") from None
    print(f"{target} is a copy of the built-in configuration {name}: edit it, then use it with --config {target}")


def _listing() -> str:
    lines = ["usage: wsss-ray init NAME [FILE]     copy a built-in configuration to a file, to edit it", ""]
    lines += ["Built-in configurations, which --config also takes by name:"]
    width = max(map(len, names()))
    for name in names():
        first = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        lines.append(f"  {name:<{width}}  {first.removeprefix('# ')}")
    return "\n".join(lines)
