from typing import Any

class Report(dict[str, Any]):
    """What a merge did: `output`, `tasks`, `base` and `report`, as `skillweld merge --json` has them."""

    def _repr_html_(self) -> str: ...
