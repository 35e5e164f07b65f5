"""safetensors files with any header, as only a damaged or hostile file has it."""

import json
from pathlib import Path
from typing import Any

LENGTH = 8


def header_and_data(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a file as JSON, and the bytes behind it."""
    content = path.read_bytes()
    start = LENGTH + int.from_bytes(content[:LENGTH], "little")
    return json.loads(content[LENGTH:start]), content[start:]


def write_raw(path: Path, header: Any, data: bytes) -> Path:
    """Write a file with a header, JSON or bytes, and data, whether they fit or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(LENGTH, "little") + text + data)
    return path
