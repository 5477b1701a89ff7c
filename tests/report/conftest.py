"""A gallery on disk, and Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from galleries import HOSTILE, YAML, Browser, Gallery, made_images
from made_runs import write_run
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from wsss_ray.audit import job as audit
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig, ReportConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.report import job as report
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory, local_ray: Resources) -> Gallery:
    """Thirteen images in two shards, five on a page, audited also against their truth."""
    root = tmp_path_factory.mktemp("gallery")
    (root / "pets.yaml").write_text(YAML)
    images = made_images()
    classes = ClassSet.load(str(root / "pets.yaml"))
    labels = Storage(str(root / "run"))
    identity = {"segmenter": {"model": HOSTILE, "api_key": "hush"}}
    write_run(
        Storage(str(root / "images")),
        labels,
        [images[:8], images[8:]],
        classes=classes,
        images_per_unit=3,
        identity=identity,
    )
    summary = read_json(labels, "summary.json")
    session = {"images": 13, "seconds": 2.5, "images_per_second": 6.5, "stage_seconds": {"detect": 2.0, "read": 0.5}}
    labels.write("summary.json", encode_json({**summary, "session": session}))
    inputs: dict[str, Any] = {
        "labels": str(root / "run"),
        "images": str(root / "images"),
        "classes": str(root / "pets.yaml"),
    }
    audit.run(AuditConfig(**inputs, output=str(root / "audit"), against_truth=True, disagreement_width=3))
    config = ReportConfig(
        **inputs, output=str(root / "site"), audit=str(root / "audit"), images_per_page=5, title=f"Pets & {HOSTILE}"
    )
    report.run(config)
    return Gallery(config=config)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests. Without one they are skipped, in CI they fail."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        reason = "no chromium and chromedriver in PATH (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    flags += ["disable-component-update", "disable-sync", f"user-data-dir={tmp_path_factory.mktemp('chromium')}"]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        driver.get("about:blank")  # away from the browser's own first page, which asks for its parts
        yield Browser(driver)
    finally:
        driver.quit()
