"""The report job: the files it leaves, again and elsewhere."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from faulty_s3 import FaultyS3
from galleries import HOSTILE, Gallery, made_images
from made_runs import write_run

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig, ReportConfig
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.evaluation import job as evaluation
from wsss_ray.report import job as report
from wsss_ray.report import job as report_job
from wsss_ray.report.state import begin_gallery
from wsss_ray.storage.storage import Storage


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def shown(root: Path) -> list[str]:
    rows = (root / "data/index.js").read_text().partition("gallery.images = ")[2].rstrip(";\n")
    return [row[0] for row in json.loads(rows)]


def test_the_folder_holds_every_picture_once(gallery: Gallery) -> None:
    names = set(files(gallery.path))
    ids = [image.image_id for image in made_images()]
    assert shown(gallery.path) == ids
    assert {f"photos/{image_id}.jpg" for image_id in ids} <= names
    assert {f"thumbnails/{image_id}.jpg" for image_id in ids} <= names
    assert {name for name in names if name.startswith("labels/")} == {f"labels/{i}.png" for i in ids if i != "broken"}
    assert {name for name in names if name.startswith("truths/")} == {f"truths/cat_{index}.png" for index in range(9)}
    assert {name for name in names if name.startswith("pages/")} == {f"pages/page-000{page}.html" for page in (1, 2, 3)}
    assert len([name for name in names if name.startswith("data/units/")]) == 5


def test_pages_refer_to_files_of_the_folder_alone(gallery: Gallery) -> None:
    for name, data in files(gallery.path).items():
        if name.endswith(".html"):
            text = data.decode()
            folder = (gallery.path / name).parent
            assert re.search(r'Content-Security-Policy" content="default-src \'none\';', text)
            assert HOSTILE not in text
            assert " style=" not in text
            for link in re.findall(r'(?:src|href)="([^"]*)"', text):
                assert not re.match(r"[a-z]+:|//", link), link
                path, _, _ = link.partition("#")
                assert not path or (folder / path).resolve().is_file(), (name, link)


def test_a_second_run_does_nothing_while_nothing_changed(
    gallery: Gallery, local_ray: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(gallery.config, output=str(tmp_path / "site"))
    shutil.copytree(gallery.path, config.output)
    before = files(gallery.path)
    (tmp_path / "site/photos/cat_0.jpg").unlink()
    report.run(config)
    assert "nothing to do" in capsys.readouterr().out
    assert not (tmp_path / "site/photos/cat_0.jpg").exists()
    (tmp_path / "site/gallery.json").write_text('{"made_by": "wsss_ray report"}')  # as if it had broken off
    report.run(config)
    assert files(tmp_path / "site") == before
    report.run(dataclasses.replace(config, title="Other pets"))
    assert "<h1>Other pets</h1>" in (tmp_path / "site/index.html").read_text()


def test_the_overview_names_no_path_of_this_machine(gallery: Gallery) -> None:
    text = (gallery.path / "index.html").read_text()
    assert '<p class="path">run</p>' in text
    assert str(gallery.path.parent) not in text


def test_a_damaged_label_file_fails_its_images_and_the_job_at_its_end(
    gallery: Gallery, local_ray: Resources, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(gallery.config.labels, run)
    first = min((run / "labels").iterdir())
    first.write_bytes(first.read_bytes()[:500])
    config = dataclasses.replace(gallery.config, labels=str(run), output=str(tmp_path / "site"), audit=None)
    for _ in range(2):  # a gallery with damage is not complete: it is written again
        with pytest.raises(JobError, match=r"1 label files cannot be used.*replaces a damaged label file"):
            report.run(config)
    assert shown(tmp_path / "site") == [image.image_id for image in made_images()]
    page = (tmp_path / "site/pages/page-0001.html").read_text()
    assert page.count("is truncated or no Parquet file") == 3
    assert "<dt>failed</dt><dd>4</dd>" in (tmp_path / "site/index.html").read_text()
    assert not (tmp_path / "site/labels/cat_0.png").exists()
    assert (tmp_path / "site/truths/cat_0.png").exists()


def test_a_report_that_another_took_over_ends_and_leaves_the_other_whole(
    gallery: Gallery, tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts and ends while the first, which shows other images, is at work."""
    first = dataclasses.replace(gallery.config, output=str(tmp_path / "site"), sample=2, audit=None)
    second = dataclasses.replace(gallery.config, output=str(tmp_path / "site"))

    def map_and_be_overtaken(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield from map_units(*arguments, **options)
        monkeypatch.undo()
        report.run(second)

    monkeypatch.setattr(report_job, "map_units", map_and_be_overtaken)
    with pytest.raises(JobError, match="another report is writing a gallery"):
        report.run(first)
    assert files(tmp_path / "site") == files(gallery.path)


def test_a_unit_is_not_shown_for_a_report_that_was_taken_over(
    gallery: Gallery, tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(gallery.config, output=str(tmp_path / "site"))

    def be_overtaken_and_map(*arguments: Any, **options: Any) -> Iterator[Any]:
        begin_gallery(Storage(config.output))
        yield from map_units(*arguments, **options)

    monkeypatch.setattr(report_job, "map_units", be_overtaken_and_map)
    with pytest.raises(JobError, match="another report is writing a gallery"):
        report.run(config)
    assert not (tmp_path / "site/photos").exists()


def test_a_gallery_with_a_missing_file_is_not_whole(
    gallery: Gallery, tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(gallery.config, output=str(tmp_path / "site"))

    def map_and_lose(*arguments: Any, **options: Any) -> Iterator[Any]:
        yield from map_units(*arguments, **options)
        (tmp_path / "site/photos/cat_3.jpg").unlink()

    monkeypatch.setattr(report_job, "map_units", map_and_lose)
    with pytest.raises(JobError, match=r"1 files of the gallery are missing.*photos/cat_3\.jpg"):
        report.run(config)
    monkeypatch.undo()
    report.run(config)
    assert files(tmp_path / "site") == files(gallery.path)


def test_files_of_killed_writers_are_removed(gallery: Gallery, tmp_path: Path, local_ray: Resources) -> None:
    site = tmp_path / "site"
    shutil.copytree(gallery.path, site)
    unique = "0" * 32
    names = (".index.html", "photos/.a", "data/units/.b", "pages/.c")
    left = [site / f"{name}.{unique}.tmp" for name in names]
    for path in left:
        path.write_bytes(b"half")
    report.run(dataclasses.replace(gallery.config, output=str(site), title="again"))
    assert not any(path.exists() for path in left)


def test_the_standard_miou_is_shown_beside_the_mean_of_the_images(
    gallery: Gallery, tmp_path: Path, local_ray: Resources
) -> None:
    config = gallery.config
    inputs = {"labels": config.labels, "images": config.images, "classes": config.classes}
    judged = evaluation.run(EvaluateConfig(**inputs, output=str(tmp_path / "evaluation"), split="val"))
    config = dataclasses.replace(config, output=str(tmp_path / "site"), evaluation=str(tmp_path / "evaluation"))
    report.run(config)
    page = (tmp_path / "site/index.html").read_text()
    tiles = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page))
    assert tiles["mIoU, summed over the pixels of 9 images of split val"] == f"{judged.miou:.1%}"
    own = tiles["mean of each image’s own mIoU, over 9 images (not the standard mIoU)"]
    assert own != f"{judged.miou:.1%}"
    assert f'<td class="number">{judged.classes[1].iou:.1%}</td>' in page
    shutil.copytree(config.labels, tmp_path / "other")
    with pytest.raises(ValueError, match="evaluates the labels in"):
        report.run(dataclasses.replace(config, labels=str(tmp_path / "other")))
    with pytest.raises(ValueError, match="must be the --output of wsss-ray evaluate"):
        report.run(dataclasses.replace(config, evaluation=str(tmp_path / "other")))


def test_images_of_an_audited_run_open_in_the_order_of_the_audit(gallery: Gallery) -> None:
    for name in ("index.html", "pages/page-0001.html"):
        assert "pages/page-0001.html#sort=rank" in (gallery.path / name).read_text()


def test_a_sample_in_the_same_folder_retires_the_pages_behind_it(
    gallery: Gallery, tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(gallery.config, output=str(tmp_path / "site"), audit=None, images_per_page=3)
    report.run(dataclasses.replace(config, sample=8))
    first = shown(tmp_path / "site")
    assert len(first) == 8
    assert "A sample of 8 of 13" in (tmp_path / "site/index.html").read_text()
    report.run(dataclasses.replace(config, sample=4, seed=1))
    second = shown(tmp_path / "site")
    assert len(second) == 4
    everything = [image.image_id for image in made_images()]
    assert second == sorted(second, key=everything.index)
    assert "Images 4 to 4 of 4" in (tmp_path / "site/pages/page-0002.html").read_text()
    assert "No such page" in (tmp_path / "site/pages/page-0003.html").read_text()
    assert "gallery of 4 images" in capsys.readouterr().out


def test_pictures_of_an_earlier_gallery_are_removed_and_nothing_else(
    gallery: Gallery, tmp_path: Path, local_ray: Resources
) -> None:
    site = tmp_path / "site"
    shutil.copytree(gallery.path, site)
    kept = ["notes.txt", "photos/notes.txt", "more/cat_0.jpg", "labels/more/cat_0.png"]
    shutil.copytree(site / "truths", tmp_path / "elsewhere")
    shutil.rmtree(site / "truths")
    (site / "truths").symlink_to(tmp_path / "elsewhere")
    for name in kept:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("mine")
    report.run(dataclasses.replace(gallery.config, output=str(site), sample=2, audit=None))
    ids = shown(site)
    assert len(ids) == 2
    names = {name for name in files(site) if name not in kept}
    for folder in ("photos", "thumbnails"):
        assert {name for name in names if name.startswith(f"{folder}/")} == {f"{folder}/{i}.jpg" for i in ids}
    expected = {f"labels/{i}.png" for i in ids if i != "broken"}
    assert {name for name in names if name.startswith("labels/")} == expected
    assert len(list((tmp_path / "elsewhere").iterdir())) == 9  # a linked folder is left alone
    units = json.loads(re.search(r'"units":(\[.*?\])', (site / "data/index.js").read_text())[1])  # type: ignore[index]
    assert {name for name in names if name.startswith("data/units/")} == {f"data/units/{unit}.js" for unit in units}
    assert all((site / name).read_text() == "mine" for name in kept)


def test_predictions_and_no_truth_or_audit(tmp_path: Path, local_ray: Resources) -> None:
    classes = ClassSet.load("voc")
    images = [
        dataclasses.replace(image, instances=None, truth=None, tags=[tag for tag in image.tags if tag != HOSTILE])
        for image in made_images()[:2]
    ]
    write_run(Storage(str(tmp_path / "images")), Storage(str(tmp_path / "run")), [images], classes=classes)
    output = tmp_path / "site"
    report.run(ReportConfig(labels=str(tmp_path / "run"), images=str(tmp_path / "images"), output=str(output)))
    (details,) = (output / "data/units").iterdir()
    assert '"boxes":null' in details.read_text()
    overview = (output / "index.html").read_text()
    assert "Agreement with the truth" not in overview
    assert 'id="audit"' not in overview


def test_from_and_to_a_failing_s3_with_types_that_a_browser_shows(failing_s3: FaultyS3, local_ray: Resources) -> None:
    images, labels = (
        Storage(failing_s3.uri("report/images"), failing_s3.config),
        Storage(failing_s3.uri("report/run"), failing_s3.config),
    )
    made = [dataclasses.replace(image, tags=[]) for image in made_images()[:2]]
    write_run(images, labels, [made], classes=ClassSet.load("voc"))
    output = Storage(failing_s3.uri("report/site"), failing_s3.config)
    config = ReportConfig(labels=labels.uri, images=images.uri, output=output.uri, storage=failing_s3.config)
    report.run(config)
    assert list(output.list("thumbnails")) == ["cat_0.jpg", "cat_1.jpg"]
    output.write("photos/old.jpg", b"of an earlier gallery")
    output.write("truths/old.png", b"of an earlier gallery")
    report.run(
        ReportConfig(labels=labels.uri, images=images.uri, output=output.uri, storage=failing_s3.config, title="again")
    )
    assert list(output.list("photos")) == ["cat_0.jpg", "cat_1.jpg"]
    assert list(output.list("truths")) == ["cat_0.png", "cat_1.png"]
    client = boto3.client("s3", endpoint_url=failing_s3.endpoint_url)
    types = {
        name: client.head_object(Bucket=failing_s3.bucket, Key=f"report/site/{name}")["ContentType"]
        for name in ("index.html", "static/gallery.css", "static/gallery.js", "photos/cat_0.jpg", "labels/cat_0.png")
    }
    assert list(types.values()) == ["text/html", "text/css", "text/javascript", "image/jpeg", "image/png"]


def test_folders_of_something_else_are_left_alone(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("a home page")
    for _ in range(2):
        with pytest.raises(ValueError, match="no gallery of this job"):
            report.run(dataclasses.replace(gallery.config, output=str(tmp_path)))
    assert files(tmp_path) == {"index.html": b"a home page"}
    (tmp_path / "mine/photos").mkdir(parents=True)
    (tmp_path / "mine/photos/cat.jpg").write_bytes(b"my own")
    for _ in range(2):
        with pytest.raises(ValueError, match="photos holds files of no gallery"):
            report.run(dataclasses.replace(gallery.config, output=str(tmp_path / "mine")))
    assert files(tmp_path / "mine") == {"photos/cat.jpg": b"my own"}
    with pytest.raises(ValueError, match="is what --labels reads"):
        report.run(dataclasses.replace(gallery.config, output=gallery.config.labels))
    with pytest.raises(ValueError, match=r"no audit\.json"):
        report.run(dataclasses.replace(gallery.config, output=str(tmp_path / "new"), audit=str(tmp_path / "mine")))
    (tmp_path / "mine/audit.json").write_text('{"weights": {}, "against_truth": {"places": 2}}')
    with pytest.raises(ValueError, match=r"an older version wrote .*audit\.json"):
        report.run(dataclasses.replace(gallery.config, output=str(tmp_path / "new"), audit=str(tmp_path / "mine")))
