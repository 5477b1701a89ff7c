"""No version with a known hole, where it matters here, satisfies pyproject.toml; the tested versions do."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from repository import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
REQUIREMENTS = {r.name: r for r in map(Requirement, PROJECT["project"]["dependencies"])}

HOLES = [
    ("ray", "2.59.0", "fixes of the aiohttp that its agents bring along; their advisories were not found again"),
    ("ray", "2.54.0", "CVE-2026-41486: code in the metadata of a Parquet file runs when it is read; fixed in 2.55.0"),
    ("ray", "2.51.1", "CVE-2025-62593: a web page submits jobs to a local Ray; fixed in 2.52.0"),
    ("torch", "2.5.1", "CVE-2025-32434: torch.load(weights_only=True) runs code; fixed in 2.6.0"),
    ("transformers", "5.2.0", "CVE-2026-4372: from_pretrained runs code; fixed in 5.3.0"),
    ("pyarrow", "14.0.0", "CVE-2023-47248: code in a Parquet file runs when it is read; fixed in 14.0.1"),
    ("pillow", "12.2.0", "CVE-2026-59197, CVE-2026-59199: writes out of bounds in filters and crops; fixed in 12.3.0"),
    ("pillow", "12.1.0", "CVE-2026-25990: writes out of bounds; fixed in 12.1.1"),
    ("pillow", "11.2.1", "CVE-2025-48379: writes out of bounds; fixed in 11.3.0"),
    ("fsspec", "2026.5.0", "CVE-2026-104851: code in a reference file system; fixed in 2026.6.0"),
    ("pyyaml", "5.3.1", "CVE-2020-14343: code in YAML; fixed in 5.4"),
    ("jinja2", "3.1.5", "CVE-2025-27516: out of the sandbox; fixed in 3.1.6"),
    ("aiohttp", "3.14.3", "fixes of 3.14.4; their advisories were not found again"),
    ("aiohttp", "3.14.2", "CVE-2026-69244: reads out of bounds in a damaged answer; fixed in 3.14.3"),
    ("aiohttp", "3.14.1", "CVE-2026-69243, CVE-2026-59881: requests smuggled through WebSockets; fixed in 3.14.2"),
    ("aiohttp", "3.13.2", "CVE-2025-69223: decompression bombs; fixed in 3.13.3"),
    ("urllib3", "2.7.0", "CVE-2026-97687, CVE-2026-97689: TLS of a proxy, endless memory; fixed in 2.8.0"),
    ("urllib3", "2.6.3", "CVE-2026-44432: decompression bombs; fixed in 2.7.0"),
    ("urllib3", "2.6.2", "CVE-2026-21441: decompression bombs; fixed in 2.6.3"),
    ("protobuf", "6.33.4", "CVE-2026-0994: endless recursion; fixed in 6.33.5"),
    ("protobuf", "6.31.0", "CVE-2025-4565: endless recursion; fixed in 6.31.1"),
]


@pytest.mark.parametrize(("name", "version", "advisory"), HOLES)
def test_versions_with_known_holes_are_left_out(name: str, version: str, advisory: str) -> None:
    assert not REQUIREMENTS[name].specifier.contains(version, prereleases=True), advisory


@pytest.mark.parametrize(("name", "version", "advisory"), HOLES)
def test_the_version_that_mended_a_hole_is_a_later_one(name: str, version: str, advisory: str) -> None:
    for fixed in re.findall(r"fixed in (\S+)", advisory):
        assert Version(version) < Version(fixed), "the version that is left out had the hole"


def test_every_advisory_that_pyproject_names_is_listed() -> None:
    named = set(re.findall(r"CVE-\d+-\d+", (REPOSITORY / "pyproject.toml").read_text()))
    assert named - {"CVE-2025-47273"} <= set(re.findall(r"CVE-\d+-\d+", str(HOLES)))


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
