"""COCO's category ids and categories of a class set."""

from __future__ import annotations

from wsss_ray.classes import ClassSet


def category_ids(classes: ClassSet) -> dict[int, int]:
    """Return the category id of each class id: the class set's own (COCO's 1 to 90) if all classes have one."""
    own = {entry.id: entry.category_id for entry in classes.classes}
    if any(category_id is None for category_id in own.values()):
        return {class_id: class_id for class_id in own}
    return {class_id: category_id for class_id, category_id in own.items() if category_id is not None}


def categories(classes: ClassSet) -> list[dict[str, object]]:
    """Return COCO's list of categories, with the colors of the class set."""
    ids = category_ids(classes)
    return [
        {
            "id": ids[entry.id],
            "name": entry.name,
            "supercategory": entry.name,
            "isthing": 1,
            "color": list(entry.color),
        }
        for entry in classes.classes
    ]
