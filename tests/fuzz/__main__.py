"""Has atheris look for bytes that break a promise: python -m tests.fuzz TARGET CORPUS -max_total_time=60"""

import importlib
import sys
from typing import Any


def main() -> None:
    """Ends at a failure, or as libFuzzer's options say."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["atlas_plugin"]):
        parsers = importlib.import_module("tests.fuzz.parsers")
    target = parsers.TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
