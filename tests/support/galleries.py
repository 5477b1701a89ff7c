"""A small run that holds everything a gallery can show, and a browser to open its gallery with."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from made_runs import Made, instance
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from wsss_ray.config import ReportConfig

HOSTILE = "</script><img src=x onerror=window.alerted=1>"
YAML = f"name: pets\nclasses: [cat, dog, {json.dumps(HOSTILE)}]\n"
SIZE = (60, 80)


def photo(index: int) -> bytes:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[..., 0] = np.linspace(40, 200, SIZE[1])
    pixels[..., 1] = 20 * index % 255
    return simplejpeg.encode_jpeg(pixels, quality=90)


def made_images() -> list[Made]:
    """Twelve labelled cats, the k-th cut off by k columns against its truth; and one image of each kind beside."""
    images = []
    truth = np.zeros(SIZE, np.uint8)
    truth[10:50, 10:60] = 1
    for index in range(9):
        label = truth.copy()
        label[:, 60 - 4 * index : 60] = 0
        instances = [instance(1, label == 1, score=0.9 - 0.05 * index, mask_score=0.95, phrase="cat")]
        images.append(Made(image_id=f"cat_{index}", label=label, tags=["cat"], instances=instances, truth=truth))
    both = np.where(truth == 1, 1, 0).astype(np.uint8)
    both[:8, :8] = 3
    odd = [instance(1, both == 1, phrase="kitten"), instance(3, both == 3, mask_score=0.4)]
    images += [
        Made(image_id="hostile", label=both, tags=["cat", HOSTILE], instances=odd),
        Made(image_id="missed", label=truth, tags=["cat", "dog"], instances=[instance(1, truth == 1)]),
        Made(image_id="nothing", label=np.zeros(SIZE, np.uint8), tags=["dog"], instances=[]),
        Made(image_id="broken", label=None, size=SIZE, tags=["dog"], error=f"segment: {HOSTILE}"),
    ]
    return [dataclasses.replace(image, image=photo(index)) for index, image in enumerate(images)]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A gallery on disk, and the configuration it was made by."""

    config: ReportConfig

    @property
    def path(self) -> Path:
        return Path(self.config.output)

    def url(self, path: str) -> str:
        return f"file://{self.path}/{path}"


class Browser:
    """Headless Chromium, with what it complained about and asked for since it was last asked."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False, scripts: bool = True) -> None:
        """Open a page afresh in a window of this size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        self.driver.get("about:blank")
        self.driver.get(url)
        if scripts and "/pages/page-" in url:
            self.wait("return document.querySelector('#tools') && !document.querySelector('#tools').hidden")
            self.settle()

    def settle(self) -> None:
        """Wait until the boxes of all cards that have some are drawn."""
        self.wait(
            "return [...document.querySelectorAll('.card')].every((card) => card.querySelector('rect')"
            " || ![...card.querySelectorAll('.facts span')].some((fact) => /^[1-9].* box/.test(fact.textContent)))"
        )

    def wait(self, script: str) -> None:
        WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda driver: driver.execute_script(script))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def press(self, *keys: str) -> None:
        """Send keys to whatever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def console(self) -> list[str]:
        """Messages since the last call: errors, warnings, and what the page's policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [entry["params"] for entry in messages if entry["method"] == "Network.requestWillBeSent"]
        return [entry["request"]["url"] for entry in sent]
