"""Export the small networks with control flow that the tests cut.

Usage::

    python -m tests.control.export

Writes ``tests/control/*.onnx``, some 150 kB in all, without the paths of this machine.
"""

import subprocess
import sys
from pathlib import Path

from models import strip

_HERE = Path(__file__).parent


def main() -> None:
    """Export all, and take out what names a file of the machine."""
    for name in ("torch_nets", "tensorflow_nets", "onnxscript_nets"):
        # A process for each: torch and tensorflow do not get on in one.
        code = f"from tests.control import {name}; {name}.export({str(_HERE)!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
    for path in sorted(_HERE.glob("*.onnx")):
        strip.strip(path)


if __name__ == "__main__":
    main()
