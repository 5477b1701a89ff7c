"""The right to write to an output that takes one driver at a time: of several, the one that started last has it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """The ownership of an output by one driver, while it writes there. Can be pickled."""

    output: Storage
    file: str
    """File in the output that names the owner."""
    driver: str

    @classmethod
    def take(cls, output: Storage, file: str, **content: Any) -> Ownership:
        """Make this driver the owner of the output; `content` are further JSON values of the file."""
        driver = uuid.uuid4().hex
        output.write(file, encode_json({**content, "driver": driver}))
        return cls(output=output, file=file, driver=driver)

    def is_current(self) -> bool:
        """Return whether no other driver has taken over the output.

        Raises:
            ValueError: the file is damaged or was removed; names it.
        """
        try:
            found = read_json(self.output, self.file).get("driver")
        except FileNotFoundError:
            raise ValueError(
                f"{self.output.describe(self.file)} was removed; it says which driver writes here. Run the same "
                "command again: it continues from what is complete."
            ) from None
        if found is not None and not isinstance(found, str):
            raise ValueError(f"{self.output.describe(self.file)} is damaged: it names no driver.")
        return found == self.driver
