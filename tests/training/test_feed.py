"""The feed: reading and augmenting samples."""

import importlib
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import processes
import pyarrow as pa
import pytest
import ray
import ray.cloudpickle
import training_cases
from made_runs import Made
from processes import KillingStorage
from ray.actor import ActorHandle
from soak import SOAK
from training_cases import CLASSES, HEIGHT, WIDTH, KillingAugmentation, batch, configure, draw, write_set

from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, AttemptHistory
from wsss_ray.engine.resources import Resources
from wsss_ray.images.label_png import encode_label
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.models.student.spec import IGNORE, StudentSpec
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage
from wsss_ray.training.augmentation import Augmentation
from wsss_ray.training.feed import BadSampleError, Feed, _augment, _read
from wsss_ray.training.monitor import TrainingMonitor
from wsss_ray.training.order import Order
from wsss_ray.training.sources import open_labels, survey

ray.cloudpickle.register_pickle_by_value(training_cases)  # the tasks have no path to this folder
ray.cloudpickle.register_pickle_by_value(processes)
SPEC = StudentSpec.of(CLASSES, architecture="deeplabv2-tiny", geometry="caffe", scales=(1.0,))


def make_feed(config: TrainConfig, *, batch_size: int = 4) -> Feed:
    images = Storage(config.images)
    shards = read_shard_set(images)
    labels = open_labels(config, shards)
    found = survey(labels, images, shards, unusable=config.unusable, selection=ImageSelection())
    rows = [unit.rows for unit in shards.units]
    return Feed(
        images=images,
        units=shards.units,
        labels=labels,
        order=Order(rows=rows, left_out=found.left_out, seed=0, batch_size=batch_size, window=1024),
        augmentation=Augmentation(crop=96, scales=(1.0,), flip=False, fill=(1, 2, 3)),
        spec=SPEC,
        unusable=config.unusable,
    )


def read_all(feed: Feed, slots: range) -> list[dict]:
    stretch = feed.order.stretches(0, feed.order.length)[0]
    return [piece for table in feed.read(stretch, slots) for piece in table.to_pylist()]


def test_samples_are_those_of_the_order_with_their_labels(tmp_path: Path) -> None:
    made = [draw(index) for index in range(8)]
    write_set(tmp_path, made)
    feed = make_feed(configure(tmp_path, tmp_path / "out"))
    (piece,) = read_all(feed, range(4))
    assert piece["iteration"] == 0
    wanted = [sample for iteration in range(2) for sample in batch(feed.order, iteration)]
    assert [(row["unit"], row["row"]) for row in piece["samples"]] == [(sample.unit, sample.row) for sample in wanted]
    ready = feed.augment(piece["samples"])
    labels = np.frombuffer(ready["labels"], np.int16).reshape(8, 96, 96)
    images = np.frombuffer(ready["images"], np.uint8).reshape(8, 96, 96, 3)
    for label, image, image_id in zip(labels, images, ready["image_ids"], strict=True):
        expected = made[int(image_id[-3:])].label
        assert expected is not None
        assert np.array_equal(label[:HEIGHT, :WIDTH], expected)  # the demo's ids are its channels
        assert (label[HEIGHT:] == IGNORE).all()
        assert (label[:, WIDTH:] == IGNORE).all()
        assert (image[HEIGHT:] == (1, 2, 3)).all()
    assert ready["problem"] is None


def test_two_workers_read_what_one_does(tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index) for index in range(8)])
    feed = make_feed(configure(tmp_path, tmp_path / "out"))
    whole = [row["image_id"] for row in read_all(feed, range(4))[0]["samples"]]
    halves = [[row["image_id"] for row in read_all(feed, part)[0]["samples"]] for part in (range(2), range(2, 4))]
    assert [*halves[0][:2], *halves[1][:2], *halves[0][2:], *halves[1][2:]] == whole


def test_failed_images_are_left_out_and_counted(tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index, failed=index in (1, 6)) for index in range(8)])
    config = configure(tmp_path, tmp_path / "out")
    shards = read_shard_set(Storage(config.images))
    found = survey(
        open_labels(config, shards), Storage(config.images), shards, unusable="error", selection=ImageSelection()
    )
    assert found.left_out == {0: (1,), 1: (2,)}
    assert found.reasons["failed"] == 2
    feed = make_feed(config, batch_size=2)  # a stretch of three iterations: an epoch
    ids = {row["image_id"] for piece in read_all(feed, range(2)) for row in piece["samples"]}
    assert ids == {f"image-{index:03d}" for index in (0, 2, 3, 4, 5, 7)}


def test_listed_images_alone_are_trained_on(tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index, failed=index == 1) for index in range(8)])
    (tmp_path / "ids.txt").write_text("".join(f"image-{index:03d}\n" for index in (0, 1, 6, 99)))
    config = configure(tmp_path, tmp_path / "out")
    shards = read_shard_set(Storage(config.images))
    labels = open_labels(config, shards)
    found = {
        name: survey(labels, Storage(config.images), shards, unusable="error", selection=selection)
        for name, selection in {
            "all": ImageSelection(),
            "only": ImageSelection.read(only=f"{tmp_path}/ids.txt", exclude=None, storage=config.storage),
            "exclude": ImageSelection.read(only=None, exclude=f"{tmp_path}/ids.txt", storage=config.storage),
        }.items()
    }
    assert found["only"].left_out == {0: (1, 2, 3), 1: (0, 1, 3)}
    assert found["only"].reasons == {"failed": 1, "missing": 0, "excluded": 5}
    assert found["only"].unknown_ids == 1
    assert found["exclude"].left_out == {0: (0, 1), 1: (2,)}
    assert len({one.digest for one in found.values()}) == 3, "a rerun with another list is another run"


def test_missing_label_files_are_an_error_or_left_out(tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index) for index in range(8)])
    next((tmp_path / "labels" / "labels").glob("*.parquet")).unlink()
    config = configure(tmp_path, tmp_path / "out")
    shards = read_shard_set(Storage(config.images))
    labels = open_labels(config, shards)
    with pytest.raises(ValueError, match="4 of 8 images have no label"):
        survey(labels, Storage(config.images), shards, unusable="error", selection=ImageSelection())
    found = survey(labels, Storage(config.images), shards, unusable="leave-out", selection=ImageSelection())
    assert (found.left_out, found.reasons["missing"]) == ({0: (0, 1, 2, 3)}, 4)


def write_folder(folder: Path, made: list[Made], *, suffix: str) -> None:
    folder.mkdir()
    for one in made:
        assert one.label is not None
        (folder / f"{one.image_id}{suffix}").write_bytes(encode_label(one.label, palette=None))


@pytest.mark.parametrize("suffix", [".png", ".PNG"])
def test_a_folder_of_pngs_and_one_that_is_missing(tmp_path: Path, suffix: str) -> None:
    made = [draw(index) for index in range(8)]
    write_set(tmp_path, made)
    write_folder(tmp_path / "pngs", made[:-1], suffix=suffix)
    config = configure(tmp_path, tmp_path / "out", labels=None, label_folder=str(tmp_path / "pngs"))
    shards = read_shard_set(Storage(config.images))
    with pytest.raises(ValueError, match="1 of 8 images have no label, the first is row 3"):
        survey(
            open_labels(config, shards), Storage(config.images), shards, unusable="error", selection=ImageSelection()
        )
    feed = make_feed(configure(tmp_path, "out", labels=None, label_folder=config.label_folder, unusable="leave-out"))
    assert feed.order.epoch_samples == 7


def test_a_label_above_the_size_limit_is_not_read(tmp_path: Path) -> None:
    made = [draw(index) for index in range(4)]
    write_set(tmp_path, made)
    write_folder(tmp_path / "pngs", made, suffix=".png")
    with (tmp_path / "pngs" / "image-002.png").open("r+b") as file:
        file.truncate(8 * 2**30)
    feed = make_feed(configure(tmp_path, tmp_path / "out", labels=None, label_folder=str(tmp_path / "pngs")))
    problem = feed.augment(read_all(feed, range(4))[0]["samples"])["problem"]
    told = "has 8589934592 bytes, the limit is 200000000"
    assert problem == f"image-002: too large: {tmp_path}/pngs/image-002.png {told}"


@pytest.mark.parametrize(
    "fields", [{"labels": None}, {"label_folder": "b"}, {"label_column": "truth"}, {"label_folder": "b", "labels": "c"}]
)
def test_one_source_of_labels(tmp_path: Path, fields: dict) -> None:
    write_set(tmp_path, [draw(0)])
    config = configure(tmp_path, tmp_path / "out", **fields)
    with pytest.raises(ValueError, match="one source of labels is needed"):
        open_labels(config, read_shard_set(Storage(config.images)))


def test_truth_is_read_where_there_is_one(tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index, truth=index != 2, failed=True) for index in range(8)])
    fields = {"labels": None, "label_column": "truth"}
    config = configure(tmp_path, tmp_path / "out", **fields, unusable="leave-out")
    feed = make_feed(config)
    assert feed.order.epoch_samples == 7
    ready = feed.augment(read_all(feed, range(4))[0]["samples"])
    assert len(np.unique(np.frombuffer(ready["labels"], np.int16))) > 3


@pytest.mark.parametrize("unusable", ["error", "leave-out"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": b"no PNG"}, "image-"),
        ({"label": encode_label(np.zeros((5, 5), np.uint8), palette=None)}, "wrong size: 5 x 5, its image is 80 x 60"),
        ({"label": encode_label(np.full((60, 80), 77, np.uint8), palette=None)}, "pixels of id 77"),
        ({"image": b"no picture"}, "image-"),
        ({"label": None}, "no label"),
    ],
)
def test_a_sample_that_cannot_be_used(
    tmp_path: Path, change: dict, reason: str, unusable: Literal["error", "leave-out"]
) -> None:
    write_set(tmp_path, [draw(index) for index in range(4)])
    feed = make_feed(configure(tmp_path, tmp_path / "out", unusable=unusable))
    rows = read_all(feed, range(4))[0]["samples"]
    rows[1] |= change
    ready = feed.augment(rows)
    labels = np.frombuffer(ready["labels"], np.int16).reshape(4, 96, 96)
    assert (labels[1] == IGNORE).all()
    assert (labels[0] != IGNORE).any()
    assert len(ready["unusable"]) == 1
    assert reason in ready["unusable"][0]
    assert ready["unusable"][0].startswith(rows[1]["image_id"])
    assert (ready["problem"] is not None) == (unusable == "error")


class ForeignAugmentation(Augmentation):
    """A class of a module that other processes do not have."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return importlib.import_module, ("a_module_of_one_node_alone",)


@pytest.mark.timeout(600)
def test_a_feed_that_a_task_cannot_unpickle_ends_with_the_reason(local_ray: Resources, tmp_path: Path) -> None:
    """Otherwise Ray Data would repeat the task for ever."""
    write_set(tmp_path, [draw(index) for index in range(4)])
    good = make_feed(configure(tmp_path, tmp_path / "out"))
    feed = replace(good, augmentation=ForeignAugmentation(**vars(good.augmentation)))
    monitor = ray.remote(TrainingMonitor).options(num_cpus=0).remote()
    told = "cannot read the description of its samples.*No module named 'a_module_of_one_node_alone'"
    with pytest.raises(BadSampleError, match=told):
        next(feed.batches(rank=0, workers=1, start=0, end=1, cpus=0.5, monitor=monitor))
    piece = next(good.read(good.order.stretches(0, 1)[0], range(4)))  # read on a node that has the module
    (row,) = _augment(piece, feed=ray.put(feed), monitor=monitor, stage="augment").to_pylist()
    assert re.search(told, row["problem"])
    ray.kill(monitor)


class AbsentStorage(Storage):
    """A store that cannot be reached."""

    def open(self, path: str) -> BinaryIO:
        raise StorageError(f"{path}: the store cannot be reached")


@pytest.fixture
def monitor(local_ray: Resources) -> Iterator[ActorHandle]:
    actor = ray.remote(TrainingMonitor).options(num_cpus=0).remote()
    yield actor
    ray.kill(actor)


def read_first(feed: Feed, monitor: ActorHandle) -> Iterator[pa.Table]:
    """Run the first reading task of a feed in this process."""
    (stretch,) = feed.order.stretches(0, 1)
    return _read(pa.Table.from_pylist([asdict(stretch)]), ray.put(feed), range(4), monitor, "read")


def test_a_store_that_went_away_is_the_piece_s_problem(monitor: ActorHandle, tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index) for index in range(4)])
    feed = make_feed(configure(tmp_path, tmp_path / "out"))
    (piece,) = read_first(replace(feed, images=AbsentStorage(feed.images.uri)), monitor)
    assert re.fullmatch(r"shard-.*: the store cannot be reached", piece["problem"][0].as_py())


def test_deaths_over_reading_are_counted_and_end_the_feed(monitor: ActorHandle, tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index) for index in range(4)])
    feed = make_feed(configure(tmp_path, tmp_path / "out"))

    def history() -> AttemptHistory:
        return ray.get(monitor.history.remote("read", "0"))

    for _ in read_first(feed, monitor):
        pass
    assert not history().retried, "what ended is forgotten"
    unfinished = []
    for deaths in range(DEATHS_BEFORE_GIVING_UP):
        assert history().deaths == deaths
        unfinished.append(read_first(feed, monitor))
        assert next(unfinished[-1])["problem"].null_count == 1
    told = next(read_first(feed, monitor))["problem"][0].as_py()
    assert re.search("reads shards died several times.*--shuffle-window", told)


def test_deaths_over_decoding_are_counted_and_end_the_feed(monitor: ActorHandle, tmp_path: Path) -> None:
    write_set(tmp_path, [draw(index) for index in range(4)])
    feed = make_feed(configure(tmp_path, tmp_path / "out"))
    piece = next(feed.read(feed.order.stretches(0, 1)[0], range(4)))
    node = ray.get_runtime_context().get_node_id()
    for deaths in range(DEATHS_BEFORE_GIVING_UP):
        assert ray.get(monitor.history.remote("augment", "0")).deaths == deaths
        ray.get(monitor.begin.remote("augment", "0", node))
    (row,) = _augment(piece, feed=ray.put(feed), monitor=monitor, stage="augment").to_pylist()
    assert re.search("decodes images died several times.*image-00[0-3], image-00", row["problem"])


@pytest.mark.skipif(not SOAK, reason="in `make soak`: a dozen processes die, one after the other")
@pytest.mark.parametrize("task", ["read", "augment"])
def test_a_file_that_kills_its_process_ends_the_feed(monitor: ActorHandle, tmp_path: Path, task: str) -> None:
    write_set(tmp_path, [draw(index) for index in range(8)])
    feed = make_feed(configure(tmp_path, tmp_path / "out"))
    if task == "read":
        feed, told = replace(feed, images=KillingStorage(feed.images.uri)), "reads shards died several times"
    else:
        feed = replace(feed, augmentation=KillingAugmentation(**vars(feed.augmentation)))
        told = "decodes images died several times.*image-000, image-001"
    with pytest.raises(BadSampleError, match=told):
        next(feed.batches(rank=0, workers=1, start=0, end=2, cpus=0.5, monitor=monitor))
