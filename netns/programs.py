"""Finding the programs that netd runs."""

import shutil

from netns.errors import SegmentError


def find_program(name: str, package: str, search_path: str) -> str:
    """Absolute path of ``name`` in ``search_path`` (colon-separated). Raises SegmentError."""
    found = shutil.which(name, path=search_path)
    if found is None:
        raise SegmentError(f"{name} is not installed: no such program in {search_path} (package {package})")
    return found
