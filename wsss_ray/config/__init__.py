"""Configuration: one frozen dataclass per job, read from a YAML file and then from flags.

A job calls `parse(SomeConfig)`; everything else receives the dataclass.
"""

from wsss_ray.config.making import LabelConfig, ShardConfig
from wsss_ray.config.parsing import ConfigError, parse
from wsss_ray.config.parts import (
    DetectorConfig,
    Device,
    FusionConfig,
    Precision,
    RayConfig,
    SegmenterConfig,
    StorageConfig,
    require,
)
from wsss_ray.config.prediction import CrfConfig, PredictConfig
from wsss_ray.config.student import StudentConfig
from wsss_ray.config.training import TrainConfig
from wsss_ray.config.using import AuditConfig, DemoConfig, EvaluateConfig, ExportConfig, ReportConfig

__all__ = [
    "AuditConfig",
    "ConfigError",
    "CrfConfig",
    "DemoConfig",
    "DetectorConfig",
    "Device",
    "EvaluateConfig",
    "ExportConfig",
    "FusionConfig",
    "LabelConfig",
    "Precision",
    "PredictConfig",
    "RayConfig",
    "ReportConfig",
    "SegmenterConfig",
    "ShardConfig",
    "StorageConfig",
    "StudentConfig",
    "TrainConfig",
    "parse",
    "require",
]
