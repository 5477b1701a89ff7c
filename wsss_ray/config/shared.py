"""Parts that the configurations of several jobs share: sections, common fields, and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from wsss_ray.addresses import refuse_credentials
from wsss_ray.registry import Registry


@dataclass(frozen=True)
class Input:
    """Something that a job reads, so that no output overwrites it."""

    flag: str
    """The flag that names it."""
    path: str
    """Path or URI."""
    kind: Literal["folder", "file", "run"] = "folder"
    """run: a run directory, in which other jobs may have folders of their own."""


def given(*inputs: tuple[str, str | None, Literal["folder", "file", "run"]]) -> tuple[Input, ...]:
    """Return the inputs (flag, path, kind) whose path is given."""
    return tuple(Input(flag, path, kind) for flag, path, kind in inputs if path is not None)


class FieldError(ValueError):
    """A value that a configuration's field cannot have."""

    def __init__(self, name: str, message: str) -> None:
        """Create the error.

        Args:
            name: name of the field, so that its line in a file can be found.
            message: the text, which names class and field.
        """
        super().__init__(message)
        self.field = name


def require(config: object, name: str, ok: bool, rule: str) -> None:
    """Raise a FieldError that names the field, its value and the rule it breaks, unless `ok`."""
    if not ok:
        raise FieldError(name, f"{type(config).__name__}.{name} is {getattr(config, name)!r}: it must be {rule}.")


def require_registered(config: object, name: str, registry: Registry[Any]) -> None:
    """Raise a FieldError that lists the valid names, unless the field's names are registered or not given yet."""
    value = getattr(config, name)
    try:
        for entry in (value,) if isinstance(value, str) else value if isinstance(value, tuple) else ():
            registry.check(entry)
    except ValueError as error:
        raise FieldError(name, f"{type(config).__name__}.{name}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Access to `s3://`. Keys come from the environment, a profile or the instance's role, never from here."""

    endpoint_url: str | None = None
    """S3 endpoint for stores other than AWS (MinIO, Ceph, ...). Unset: AWS_ENDPOINT_URL, else AWS."""
    region: str | None = None
    """S3 region. Unset: AWS_DEFAULT_REGION or the profile's."""
    profile: str | None = None
    """Named profile of ~/.aws/credentials, which must then exist on every node."""
    retries: int = 9
    """How often an S3 request is repeated after a transient error (busy, throttled, connection lost, timeout), with
    varying pauses from 0.2 to 20 s: about 50 s in all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "retries", self.retries >= 0, "0 or more")
        if self.endpoint_url is not None:
            refuse_credentials(self.endpoint_url)
            if not self.endpoint_url.startswith(("http://", "https://")):
                raise FieldError("endpoint_url", "StorageConfig.endpoint_url must begin with http:// or https://.")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """The cluster on which the job runs, and its actors."""

    address: str | None = None
    """Address of an existing cluster ("auto", "ray://host:10001"). Unset: RAY_ADDRESS when a cluster set it (as
    `ray job submit` does), else a Ray of its own on this machine, bound to 127.0.0.1."""
    actors: int | None = None
    """Model actors (with `placement: split`: segmenters). Unset: one per GPU of the cluster, else one per core. In jobs
    without models: tasks at once; unset: as many as the cores allow."""
    detector_actors: int | None = None
    """Detector actors with `placement: split`. Unset: a quarter of `actors`, at least one."""
    gpus_per_actor: float | None = None
    """GPUs each model actor holds (0.5: two share one). Unset: 1 where the cluster has GPUs, else 0."""
    cpus_per_actor: float | None = None
    """Cores each model actor holds. Unset: 1 with GPUs or `wait_for_nodes`; else the machine's cores divided
    among the actors. In jobs without models: cores each task holds; unset: 1."""
    wait_for_nodes: bool = False
    """Accept pools that the cluster cannot hold yet, because an autoscaler will add nodes. Model actors then
    need `actors` and `gpus_per_actor`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("actors", "detector_actors"):
            value = getattr(self, name)
            require(self, name, value is None or value >= 1, "at least 1")
        require(self, "gpus_per_actor", self.gpus_per_actor is None or self.gpus_per_actor >= 0, "0 or more")
        require(self, "cpus_per_actor", self.cpus_per_actor is None or self.cpus_per_actor > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class LabelRunConfig:
    """Fields of the jobs that read image shards and write a run of label files."""

    input: str
    """Directory or `s3://` prefix of image shards, as `wsss-ray shard` writes them."""
    output: str
    """Run directory or `s3://` prefix. A rerun of the same command does only what is missing."""
    decoded_mb: int = 512
    """Decoded pixels (MB of uint8 RGB) of a unit in progress; an actor has three. Larger units are divided. On a GPU
    labelling has sixteen units in progress, which together hold as much."""
    limit: int | None = None
    """Process only the first N images, rounded up to whole units. Unset: all."""
    png: bool = False
    """Also write one PNG per image under png/, named by image id."""
    png_palette: Literal["auto", "palette", "grey"] = "auto"
    """PNG form. auto: palette for VOC-like sets, grey for COCO (as published); above 254 classes always 16-bit grey."""
    mixed_gpus: bool = False
    """Let GPUs of different kinds (compute capabilities) work on one run; each label file says which labelled it.
    Unset: the run belongs to the kind of its first actor, and an actor with another kind ends the job."""
    retry_failed: bool = False
    """Run the images whose rows failed again; the other rows are kept."""
    profile: bool = False
    """Write Chrome traces of an actor's first unit and of a later one to profile/ in the output, for chrome://tracing
    or ui.perfetto.dev."""
    dry_run: bool = False
    """Print the plan (units, pools, paths, estimated hours from a timed sample; when labelling, the prompts of three
    images too) and stop."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster and pools of actors."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "limit", self.limit is None or self.limit >= 1, "at least 1")
        require(self, "decoded_mb", self.decoded_mb >= 1, "at least 1")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class LabelReaderConfig:
    """Fields of the jobs that read a run of label files and the images they belong to."""

    labels: str
    """Run directory of `wsss-ray label` or `wsss-ray predict`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return given(("--labels", self.labels, "run"), ("--images", self.images, "folder"))

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")
