"""What is left of a source text without a macro."""

import re

import pytest

from atlas_build.console import BuildError
from atlas_build.unifdef import without_macro


@pytest.mark.parametrize(
    ("text", "reduced"),
    [
        ("a\n#ifdef LLAMA_ATLAS // why\nb\n#else\nc\n#endif\nd\n", "a\nc\nd\n"),
        ("#ifndef LLAMA_ATLAS\na\n#else\nb\n#endif\n", "a\n"),
        ("#if X\n# ifdef LLAMA_ATLAS\nb\n# endif\nc\n#else\nd\n#endif\n", "#if X\nc\n#else\nd\n#endif\n"),
        (
            "#ifdef LLAMA_ATLAS\n#if X\na\n#elif Y\nb\n#else\nc\n#endif\n#else\nd\n#endif\n",
            "d\n",
        ),
        ("#ifdef LLAMA_ATLAS\n#ifndef LLAMA_ATLAS\na\n#else\nb\n#endif\n#endif\nc", "c"),
        ("#ifdef LLAMA_ATLAS_X\r\na\r\n#endif\r\n", "#ifdef LLAMA_ATLAS_X\r\na\r\n#endif\r\n"),
    ],
)
def test_without_macro(text: str, reduced: str) -> None:
    assert without_macro(text, "LLAMA_ATLAS", "f") == reduced


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("#if defined(LLAMA_ATLAS)\n#endif\n", "f:1: test LLAMA_ATLAS with #ifdef"),
        ("#if X\n#elif LLAMA_ATLAS\n#endif\n", "f:2: test LLAMA_ATLAS with #ifdef"),
        ("#ifdef LLAMA_ATLAS\n#elif X\n#endif\n", "f:2: test LLAMA_ATLAS with #ifdef"),
        ("#endif\n", "f:1: #endif without #if"),
        ("#if X\n#ifdef LLAMA_ATLAS\n#endif\n", "f:1: conditional without #endif"),
    ],
)
def test_without_macro_refuses(text: str, error: str) -> None:
    with pytest.raises(BuildError, match=re.escape(error)):
        without_macro(text, "LLAMA_ATLAS", "f")
