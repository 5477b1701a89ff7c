"""Configuration: one frozen dataclass per job, read from a YAML file and then from flags.

A job calls `parse(SomeConfig)`; everything else receives the dataclass.
"""

from wsss_ray.config.audit import AuditConfig
from wsss_ray.config.demo import DemoConfig
from wsss_ray.config.doctor import DoctorConfig
from wsss_ray.config.evaluate import EvaluateConfig
from wsss_ray.config.export import ExportConfig
from wsss_ray.config.label import LabelConfig, LabellerConfig
from wsss_ray.config.models import DetectorConfig, Device, FusionConfig, Precision, SegmenterConfig
from wsss_ray.config.parsing import ConfigError, parse
from wsss_ray.config.pipeline import PipelineConfig
from wsss_ray.config.predict import CrfConfig, PredictConfig
from wsss_ray.config.report import ReportConfig
from wsss_ray.config.shard import ShardConfig
from wsss_ray.config.shared import RayConfig, StorageConfig, require
from wsss_ray.config.student import StudentConfig
from wsss_ray.config.train import TrainConfig

__all__ = [
    "AuditConfig",
    "ConfigError",
    "CrfConfig",
    "DemoConfig",
    "DetectorConfig",
    "Device",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FusionConfig",
    "LabelConfig",
    "LabellerConfig",
    "PipelineConfig",
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
