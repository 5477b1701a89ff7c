"""VOC's XML: the tags in it, and nothing else that it might do."""

from pathlib import Path

import pytest

from wsss_ray.datasets.voc_tags import read_xml_tags


def annotation(*objects: str) -> bytes:
    return f"<annotation><filename>a.jpg</filename>{''.join(objects)}</annotation>".encode()


def test_xml_gives_the_names_of_objects_difficult_ones_too() -> None:
    data = annotation(
        "<object><name>person</name><difficult>0</difficult><part><name>head</name></part></object>",
        "<object><name> dog </name><difficult>1</difficult></object>",
        "<object><name>dog</name></object>",
    )
    assert read_xml_tags(data, "a.xml") == ("person", "dog", "dog")
    assert read_xml_tags(annotation(), "a.xml") == ()


def test_real_xml(shared: Path) -> None:
    path = shared / "data/voc/VOCdevkit/VOC2012/Annotations/2007_000904.xml"
    assert read_xml_tags(path.read_bytes(), "a.xml") == ("cow", "person", "horse")


BILLION_LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>
<annotation><object><name>&b;</name></object></annotation>"""
EXTERNAL = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>
<annotation><object><name>&x;</name></object></annotation>"""
BARE_DTD = b"""<!DOCTYPE annotation SYSTEM "http://example.com/a.dtd"><annotation></annotation>"""


@pytest.mark.parametrize("data", [BILLION_LAUGHS, EXTERNAL, BARE_DTD])
def test_xml_with_a_dtd_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a.xml: refused: the XML has a DTD"):
        read_xml_tags(data, "a.xml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid XML"),
        (b"<annotation><object>", "not valid XML"),
        (b"\xff\xfe<", "not valid XML"),
        (b"<html></html>", "not a VOC annotation: its root is <html>"),
        (annotation("<object><pose/></object>"), "an <object> has no <name>"),
        (b" " * 10_000_001, "too many"),
    ],
)
def test_malformed_xml_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^a.xml: .*{message}"):
        read_xml_tags(data, "a.xml")
