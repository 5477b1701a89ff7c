"""No version with a known hole, where it matters here, satisfies pyproject.toml; the tested versions do."""

from __future__ import annotations

import re
import tomllib

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
REQUIREMENTS = {r.name: r for r in map(Requirement, PROJECT["project"]["dependencies"])}

HOLES = [
    ("ray", "2.59.0", "CVE-2026-111064 and others, in the aiohttp that its agents bring along"),
    ("ray", "2.54.0", "CVE-2026-41486: code in the metadata of a Parquet file runs when it is read"),
    ("ray", "2.51.1", "CVE-2025-62593: a web page submits jobs to a local Ray"),
    ("torch", "2.5.1", "CVE-2025-32434: torch.load(weights_only=True) runs code"),
    ("transformers", "5.2.0", "CVE-2026-4372: from_pretrained runs code"),
    ("pyarrow", "14.0.0", "CVE-2023-47248: code in a Parquet file runs when it is read"),
    ("pillow", "12.2.0", "CVE-2026-55798, CVE-2026-59197 to 59200"),
    ("pillow", "12.1.0", "CVE-2026-25990: writes out of bounds"),
    ("pillow", "11.2.1", "CVE-2025-48379: writes out of bounds"),
    ("fsspec", "2026.5.0", "CVE-2026-104851: code in a reference file system"),
    ("pyyaml", "5.3.1", "CVE-2020-14343: code in YAML"),
    ("jinja2", "3.1.5", "CVE-2025-27516: out of the sandbox"),
    ("aiohttp", "3.14.3", "CVE-2026-111064, CVE-2026-111066"),
    ("aiohttp", "3.13.2", "CVE-2025-69223: decompression bombs"),
    ("urllib3", "2.7.0", "CVE-2026-97687 to 97689"),
    ("urllib3", "2.6.3", "CVE-2026-44432: decompression bombs"),
    ("protobuf", "6.33.4", "CVE-2026-0994: endless recursion"),
]


@pytest.mark.parametrize(("name", "version", "advisory"), HOLES)
def test_versions_with_known_holes_are_left_out(name: str, version: str, advisory: str) -> None:
    assert not REQUIREMENTS[name].specifier.contains(version, prereleases=True), advisory


def test_the_builder_has_none_either() -> None:
    (builder,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert not builder.specifier.contains("78.1.0"), "CVE-2025-47273: writes outside its folder"


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in REQUIREMENTS.values():
        assert any(part.operator in (">=", "~=", "==") for part in requirement.specifier), requirement


def test_the_tested_versions_are_admitted() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE))
    for name, version in pins.items():
        if name in REQUIREMENTS:
            assert REQUIREMENTS[name].specifier.contains(version), f"{name}=={version}"
