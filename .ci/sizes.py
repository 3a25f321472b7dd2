"""Keep the repository small and its files and functions short."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MEGABYTES, FILE_LINES, FUNCTION_LINES = 20, 400, 60


def faults(root: Path) -> Iterator[str]:
    """Yield a line for everything that is too large."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True
    )
    tracked = [
        path for name in listed.stdout.split("\0") if name and (path := root / name).is_file()
    ]
    size = sum(path.stat().st_size for path in tracked) / 1e6
    if size >= MEGABYTES:
        yield f"the repository holds {size:.1f} MB, {MEGABYTES} are allowed"
    for path in sorted((root / "onnxprune").rglob("*.py")):
        where = path.relative_to(root)
        text = path.read_text("utf-8")
        lines = text.count("\n")
        if lines > FILE_LINES:
            yield f"{where}: {lines} lines, {FILE_LINES} are allowed"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    place = f"{where}:{node.lineno} {node.name}"
                    yield f"{place}: {length} lines, {FUNCTION_LINES} are allowed"


if __name__ == "__main__":
    sys.exit("\n".join(faults(Path(__file__).resolve().parents[1])) or None)
