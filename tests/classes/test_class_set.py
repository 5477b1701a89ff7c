"""Class sets: the built-in ones, files of a user, what is refused and where, tags, colors, label space."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import BUILT_IN, ClassEntry, ClassSet, UnknownTagError, voc_color

VOC_RAW_NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
TABLE_WORDS = ("bowl", "plate", "food", "fruit", "glass", "dishes")


def write(folder: Path, text: str) -> str:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("name", "count"), [("voc", 20), ("voc-raw", 20), ("coco", 80), ("demo", 9)])
def test_built_in_sets_have_consecutive_ids_and_ignore_255(name: str, count: int) -> None:
    class_set = ClassSet.load(name)
    assert class_set.name == name
    assert [entry.id for entry in class_set.classes] == list(range(1, count + 1))
    assert (class_set.background_id, class_set.ignore_id, class_set.num_classes) == (0, 255, count + 1)
    assert class_set.label_dtype is np.uint8


@pytest.mark.parametrize("name", ["voc", "voc-raw"])
def test_voc_resolves_the_data_sets_own_spellings_to_ids_in_its_order(name: str) -> None:
    class_set = ClassSet.load(name)
    assert [class_set.by_name[class_set.canonical(tag)].id for tag in VOC_RAW_NAMES] == list(range(1, 21))
    assert class_set.canonical("TVmonitor") == "tv monitor"
    assert class_set.canonical(" Potted  Plant ") == "potted plant"


def test_voc_prompts_natural_names_with_assist_words_as_a_choice() -> None:
    plain, assisted = ClassSet.load("voc"), ClassSet.load("voc", assist_words=True)
    assert plain.phrases_of("tv monitor") == assisted.phrases_of("tv monitor") == ("tv monitor", "tv", "monitor")
    assert plain.phrases_of("dining table") == ("dining table",)
    assert assisted.phrases_of("dining table") == ("dining table", *TABLE_WORDS)
    assert plain.phrases_of("horse") == ("horse",)
    assert assisted.phrases_of("horse") == ("horse", "halter", "saddle")
    assert sum(len(plain.phrases_of(name)) for name in plain.names) == 22


def test_voc_raw_prompts_what_the_published_code_does() -> None:
    class_set = ClassSet.load("voc-raw")
    prompted = [class_set.phrases_of(name) for name in class_set.names]
    assert [phrases[0] for phrases in prompted] == VOC_RAW_NAMES
    assert {phrases[0]: phrases[1:] for phrases in prompted if len(phrases) > 1} == {
        "diningtable": TABLE_WORDS,
        "horse": ("halter", "saddle"),
        "tvmonitor": ("tv", "monitor"),
    }


def test_voc_and_voc_raw_share_shards_and_no_other_sets_do() -> None:
    digests = {name: ClassSet.load(name).label_space_digest for name in BUILT_IN}
    assert digests["voc"] == digests["voc-raw"]
    assert len(set(digests.values())) == 3
    assert all(len(digest) == 64 for digest in digests.values())


def test_demo_counts_bowls_and_plates_as_table() -> None:
    class_set = ClassSet.load("demo")
    assert class_set.phrases_of("dining table") == ("dining table", "bowl", "plate")
    assert ClassSet.load("demo", assist_words=False).phrases_of("dining table") == ("dining table",)


def test_coco_maps_category_ids_in_their_order(shared: Path) -> None:
    path = shared / "data/coco/annotations/instances_val2017.json"
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
    ordered = sorted((category["id"], category["name"]) for category in categories)
    class_set = ClassSet.load("coco")
    assert [(entry.category_id, entry.name) for entry in class_set.classes] == ordered
    assert (class_set.by_name["toothbrush"].id, class_set.by_name["toothbrush"].category_id) == (80, 90)
    assert class_set.by_id[12].name == "stop sign"  # category 13: there is no category 12


def test_voc_palette_is_that_of_real_voc_masks(shared: Path) -> None:
    mask = next((shared / "data/voc").rglob("SegmentationClassAug/*.png"))
    with Image.open(mask) as image:
        assert image.mode == "P"
        real = bytes(image.getpalette() or [])
    palette = ClassSet.load("voc").palette()
    assert len(palette) == 768
    assert palette[: 21 * 3] == real[: 21 * 3]
    assert palette[255 * 3 :] == bytes((224, 224, 192)) == real[255 * 3 :]


def test_colors_follow_the_voc_bit_order_beyond_one_byte() -> None:
    assert [voc_color(index) for index in (0, 1, 2, 4, 8, 15, 256)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (0, 0, 128),
        (64, 0, 0),
        (192, 128, 128),
        (0, 0, 32),
    ]
    assert len({voc_color(index) for index in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text", ["[dog, tv set]\n", "- dog\n- tv set\n", "classes: [dog, tv set]\n", "classes: {dog: , tv set: }"]
)
def test_a_list_of_names_is_a_class_set(tmp_path: Path, text: str) -> None:
    class_set = ClassSet.load(write(tmp_path, text))
    assert class_set.name == "my"
    assert [(entry.name, entry.id, entry.phrases, entry.color) for entry in class_set.classes] == [
        ("dog", 1, ("dog",), (128, 0, 0)),
        ("tv set", 2, ("tv set",), (0, 128, 0)),
    ]


def test_every_key_of_a_file_is_read(tmp_path: Path) -> None:
    text = """
name: pets
background_id: 9
ignore_id: 200
assist_words: yes
classes:
  Dog:
    {id: 3, phrases: ["St. Bernard?", pug], assist: [kennel], aliases: [hound], color: [1, 2, 3], category_id: 18}
  cat:
"""
    class_set = ClassSet.load(write(tmp_path, text))
    dog, cat = class_set.classes
    assert dog == ClassEntry(
        name="Dog",
        id=3,
        phrases=("St. Bernard?", "pug"),
        assist=("kennel",),
        aliases=("hound",),
        color=(1, 2, 3),
        category_id=18,
    )
    assert (cat.name, cat.id) == ("cat", 2)
    assert (class_set.name, class_set.background_id, class_set.ignore_id) == ("pets", 9, 200)
    assert class_set.phrases_of("Dog") == ("st bernard", "pug", "kennel")
    assert class_set.canonical("HOUND") == "Dog"
    palette = class_set.palette()
    assert [tuple(palette[3 * index : 3 * index + 3]) for index in (3, 9, 200)] == [
        (1, 2, 3),
        (0, 0, 0),
        (224, 224, 192),
    ]


def test_a_class_of_id_0_does_not_take_the_backgrounds_black(tmp_path: Path) -> None:
    class_set = ClassSet.load(write(tmp_path, "background_id: 2\nclasses: {dog: {id: 0}, cat: {id: 1}}"))
    assert class_set.by_name["dog"].color == voc_color(2)
    assert class_set.palette()[:9] == bytes((*voc_color(2), *voc_color(1), 0, 0, 0))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, ["empty"]),
        (f"- dog\n- {'[' * 3000}{']' * 3000}\n", 2, ["levels are nested"]),
        ("classes:\n  [1, 2]: dog\n", 2, ["a key must be text", "a list"]),
        ("- dog\n- [cat\n- horse: {", 3, ["not valid YAML"]),
        ("name: pets\n", 1, ["`classes` is missing"]),
        ("name: pets\nclasses: []\n", 2, ["no classes"]),
        ("name: pets\nclasses:\n", 2, ["no classes"]),
        ("name: pets\nclasses: dog\n", 2, ["`key: value` lines", "`dog`"]),
        ("- dog\n- cat\n- DOG\n", 3, ["name 'DOG'", "already the name of class 'dog'", "my.yaml:1"]),
        ("classes:\n  dog:\n  dog:\n", 3, ["given twice", "line 2"]),
        (
            "classes:\n  dog: {aliases: [hound]}\n  cat:\n    aliases:\n    - kitty\n    - Hound\n",
            6,
            ["'Hound'", "my.yaml:2"],
        ),
        ("classes:\n  dog:\n  cat: {aliases: [Dog]}\n", 3, ["already the name of class 'dog'"]),
        ("classes:\n  dog:\n  cat: {phrases: [pet, dog]}\n", 3, ["phrase 'dog'", "phrase of class 'dog'"]),
        ("classes:\n  bowl:\n  table: {assist: [bowl]}\n", 3, ["assist word 'bowl'"]),
        ("classes:\n  tv:\n    phrases:\n    - t.v\n    - T V\n", 5, ["phrase 'T V'", "my.yaml:4"]),
        ("classes:\n  tv:\n    phrases:\n    - tv\n    - tv\n", 5, ["twice", "my.yaml:4"]),
        ("classes:\n  dog:\n    phrases: []\n", 3, ["no phrase"]),
        ("classes:\n  dog:\n    phrases: [dog, '. ?']\n", 3, ["'. ?'", "in words"]),
        ("- dog\n- '?'\n", 2, ["'?'", "in words"]),
        ("- dog\n- '  '\n", 2, ["empty"]),
        ("- dog\n-\n", 2, ["nothing"]),
        ("- dog\n- no\n", 2, ["`no`", "quotes"]),
        ("- dog\n- 1984\n", 2, ["`1984`", "quotes"]),
        ("- dog\n- cat: {id: 3}\n", 2, ["a class name must be text", "a mapping"]),
        ("classes:\n  dog:\n  cat: {id: 0}\n", 3, ["`background_id`", "another `id`"]),
        ("classes:\n  dog:\n  cat: {id: 255}\nignore_id: 255\n", 3, ["`ignore_id`"]),
        ("ignore_id: 2\nclasses:\n- dog\n- cat\n", 4, ["'cat' has id 2", "`ignore_id`"]),
        ("classes:\n  dog: {id: 4}\n  cat:\n    id: 4\n", 4, ["id '4'", "class 'dog'"]),
        ("classes:\n  dog: {category_id: 4}\n  cat: {category_id: 4}\n", 3, ["category_id '4'"]),
        ("classes:\n  dog:\n    id: 65536\n", 3, ["from 0 to 65535"]),
        ("classes:\n  dog:\n    id: -1\n", 3, ["from 0 to 65535"]),
        ("classes:\n  dog:\n    id: one\n", 3, ["whole number", "`one`"]),
        ("classes:\n  dog:\n    id: 0x10\n", 3, ["whole number", "`0x10`"]),
        ("classes:\n  dog:\n    id: true\n", 3, ["whole number"]),
        ("classes:\n  dog:\n    colour: [1, 2, 3]\n", 3, ["`colour`", "Did you mean `color`", "phrases"]),
        ("clases: [dog]\n", 1, ["Did you mean `classes`"]),
        ("classes:\n  dog:\n    color: [1, 2]\n", 3, ["from 0 to 255"]),
        ("classes:\n  dog:\n    color: [1, 2, 256]\n", 3, ["from 0 to 255"]),
        ("classes:\n  dog:\n    color: [1, 2, 3.5]\n", 3, ["whole number", "`3.5`"]),
        ("classes:\n  dog:\n    color: red\n", 3, ["a list"]),
        ("classes:\n  dog:\n    aliases: hound\n", 3, ["must be a list"]),
        ("classes:\n  dog: [hound]\n", 2, ["`key: value` lines", "a list"]),
        ("classes: [dog]\nassist_words: maybe\n", 2, ["true or false"]),
        ("classes: [dog]\nbackground_id: 255\nignore_id: 255\n", 3, ["must differ"]),
        ("classes: [dog]\nbackground_id: 70000\n", 2, ["from 0 to 65535"]),
        ("classes:\n  " + "[" * 3000 + "]" * 3000, 2, ["more than 20 levels are nested"]),
        ("classes:\n  " + "- " * 3000, 2, ["more than 20 levels are nested"]),
        ("classes:\n  dog:\n    id: " + "9" * 5000, 3, ["whole number"]),
        ('- dog\n- "\\ud800"\n', 2, ["no character"]),
        ("- dog\n- !!python/object/apply:os.getcwd []\n", 2, ["must be text"]),
    ],
)
def test_a_bad_file_is_refused_with_the_line_to_mend(tmp_path: Path, text: str, line: int, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"{path}:{line}: ")) as caught:
        ClassSet.load(path)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no class set 'vocc': .*voc, voc-raw, coco, demo"):
        ClassSet.load("vocc")
    with pytest.raises(ValueError, match="cannot read the class set"):
        ClassSet.load(str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes("- caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8 text"):
        ClassSet.load(str(tmp_path / "latin.yaml"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "windows.yaml").write_bytes(b"\xef\xbb\xbf- dog\r\n- cat\r\n")
    assert ClassSet.load(str(tmp_path / "windows.yaml")).names == ("dog", "cat")


@pytest.mark.parametrize(
    ("tag", "near"),
    [
        ("diningtabel", "dining table"),
        ("tv", "tv monitor"),
        ("moterbike", "motorbike"),
        ("potted_plant", "potted plant"),
    ],
)
def test_an_unknown_tag_names_near_matches(tag: str, near: str) -> None:
    with pytest.raises(UnknownTagError, match=f"'{tag}'.*Near: .*{near}"):
        ClassSet.load("voc").canonical(tag)


def test_an_unknown_tag_like_no_other_names_the_classes() -> None:
    with pytest.raises(UnknownTagError, match=r"Its classes: aeroplane, .*tv monitor"):
        ClassSet.load("voc").canonical("xylophone")
    with pytest.raises(UnknownTagError, match=r"person, .* and 55 more"):
        ClassSet.load("coco").canonical("qqq")


def test_names_are_compared_whatever_their_unicode_composition() -> None:
    class_set = ClassSet.from_names(["caf\u00e9"])
    assert class_set.canonical("CAFE\u0301") == "caf\u00e9"


@pytest.mark.parametrize(
    ("count", "dtype", "ignore"),
    [(254, np.uint8, 255), (255, np.uint16, 65535), (256, np.uint16, 65535), (300, np.uint16, 65535)],
)
def test_large_label_spaces_turn_to_16_bits(tmp_path: Path, count: int, dtype: type, ignore: int) -> None:
    names = [f"thing {index}" for index in range(1, count + 1)]
    from_file = ClassSet.load(write(tmp_path, "".join(f"- {name}\n" for name in names)))
    for class_set in (from_file, ClassSet.from_names(names)):
        assert class_set.label_dtype is dtype
        assert (class_set.ignore_id, class_set.num_classes, class_set.classes[-1].id) == (ignore, count + 1, count)
        if dtype is np.uint8:
            assert class_set.palette()[3 * 254 :] == bytes((*voc_color(254), 224, 224, 192))
        else:
            with pytest.raises(ValueError, match="16-bit"):
                class_set.palette()


def test_the_width_follows_the_largest_id_not_the_count(tmp_path: Path) -> None:
    class_set = ClassSet.load(write(tmp_path, "classes: {dog: {id: 255}}"))
    assert (class_set.label_dtype, class_set.ignore_id) == (np.uint16, 65535)
    low_ignore = ClassSet.load(write(tmp_path, "ignore_id: 7\nclasses: {dog: {id: 255}}"))
    assert (low_ignore.label_dtype, low_ignore.ignore_id) == (np.uint16, 7)
    wide_ignore = ClassSet.load(write(tmp_path, "ignore_id: 65535\nclasses: [dog]"))
    assert wide_ignore.label_dtype is np.uint16


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("classes: {cat: {id: 2, phrases: [kitten], color: [9, 9, 9], aliases: [puss]}, dog: {id: 1}}", True),
        ("name: other\nassist_words: false\nclasses: [dog, cat]", True),
        ("classes: [cat, dog]", False),
        ("classes: [Dog, cat]", False),
        ("classes: [dog, cat, cow]", False),
        ("classes: [dog, cat]\nignore_id: 254", False),
        ("classes: [dog, cat]\nbackground_id: 3", False),
    ],
)
def test_the_label_space_is_names_and_ids_alone(tmp_path: Path, text: str, same: bool) -> None:
    plain = ClassSet.from_names(["dog", "cat"])
    assert (ClassSet.load(write(tmp_path, text)).label_space_digest == plain.label_space_digest) is same


def test_a_class_set_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValueError, match="name 'Dog' of class 'Dog' is already the name of class 'dog'"):
        ClassSet.from_names(["dog", "Dog"])
    with pytest.raises(ValueError, match="no classes"):
        ClassSet.from_names([])


def test_a_class_set_travels_by_pickle_with_its_lines(tmp_path: Path) -> None:
    class_set = ClassSet.load(write(tmp_path, "- dog\n- cat\n"))
    assert class_set.canonical("CAT") == "cat"  # fills the caches
    copy = pickle.loads(pickle.dumps(class_set))
    assert copy == class_set
    assert hash(copy) == hash(class_set)
    assert copy.classes[1].position("phrases", "cat").endswith("my.yaml:2")
