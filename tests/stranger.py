"""Run processes that can reach only the Hub on loopback, with this package or without it."""

import subprocess
import sys
from pathlib import Path

from loopback_hub import LoopbackHub


FORGET_THE_PACKAGE = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path = [path for path in sys.path if not path.endswith({str(Path(__file__).parent.parent)!r})]
try:
    import modeling_vlkd
except ImportError:
    pass
else:
    sys.exit("the package is still importable")
"""


def run(hub: LoopbackHub, folder: Path, home: str, *command: str, token: str | None = None, **more: str) -> str:
    """Run Python in a folder, with a new home in it and perhaps a token; return what it printed."""
    environment = hub.environment(folder / home, token, **more)
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
