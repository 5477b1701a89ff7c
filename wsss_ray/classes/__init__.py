"""Class sets: names, phrases, ids and colors of the classes."""

from wsss_ray.classes.class_set import BUILT_IN, ClassSet, UnknownTagError
from wsss_ray.classes.entry import IGNORE_COLOR, ClassEntry, voc_color

__all__ = ["BUILT_IN", "IGNORE_COLOR", "ClassEntry", "ClassSet", "UnknownTagError", "voc_color"]
