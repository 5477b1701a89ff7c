"""Configuration of the prediction job."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.parts import require


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """DenseCRF: a mean field over the real RGB image, with the settings that DeepLab-v2 is published with."""

    iterations: int = 10
    """Rounds of the mean field."""
    position_weight: float = 3.0
    """Weight of the kernel over positions alone; 0: off."""
    position_width: float = 1.0
    """Its standard deviation, in pixels."""
    bilateral_weight: float = 4.0
    """Weight of the kernel over positions and colours; 0: off."""
    xy_width: float = 67.0
    """Its standard deviation over positions, in pixels."""
    rgb_width: float = 3.0
    """Its standard deviation over colours, in grey levels of 0 to 255."""
    prune: float = 0.01
    """Classes whose probability stays below this in the whole image are left out, which is several times faster: they
    could not have grown much above it. 0: all classes take part."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "iterations", self.iterations >= 1, "at least 1")
        for name in ("position_weight", "bilateral_weight"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        for name in ("position_width", "xy_width", "rgb_width"):
            require(self, name, getattr(self, name) > 0, "more than 0")
        require(self, "prune", 0 <= self.prune < 1, "at least 0 and below 1")
