"""Writes the C file through which the host reaches Python, from the declarations in atlas-abi.h.

Run by the build: embedding.py ATLAS_ABI_H OUTPUT_C
"""

import re
import sys
from pathlib import Path

import cffi

INIT_CODE = """
from _atlas_embedded import ffi, lib
from atlas_plugin.builtin import make_builtins
from atlas_plugin.host import embedding
embedding.bind(ffi, lib, make_builtins)
"""


def declarations(header: str, part: str) -> str:
    """What stands between the markers `cffi: PART begin` and `cffi: PART end`."""
    match = re.search(rf"/\* cffi: {part} begin \*/(.*?)/\* cffi: {part} end \*/", header, re.DOTALL)
    if match is None:
        sys.exit(f"embedding.py: the header has no part marked 'cffi: {part}'")
    return match.group(1)


def main(header_path: str, output: str) -> None:
    header = Path(header_path).read_text(encoding="utf-8")
    ffi = cffi.FFI()
    ffi.cdef(declarations(header, "types"))
    ffi.embedding_api(declarations(header, "functions"))
    ffi.set_source("_atlas_embedded", '#include "atlas-abi.h"')
    ffi.embedding_init_code(INIT_CODE)
    ffi.emit_c_code(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
