"""What the C preprocessor leaves of a file when one macro is undefined, all other conditionals untouched."""

import re
from dataclasses import dataclass

from atlas_build.console import BuildError

_CONDITIONAL = re.compile(r"\s*#\s*(if|ifdef|ifndef|elif|elifdef|elifndef|else|endif)\b(.*)", re.DOTALL)


@dataclass
class _Level:
    """An open conditional. `resolved`: it tests the macro itself, so that its directive lines go as well."""

    line: int
    resolved: bool
    keep: bool


def without_macro(text: str, macro: str, name: str) -> str:
    """Resolve `#ifdef macro` and `#ifndef macro`, with their `#else` and `#endif`, `macro` being undefined.

    Raises BuildError, naming `name` and the line, for a test of the macro in another form and for unbalanced
    conditionals. Directives inside comments and raw strings are taken as directives.
    """
    kept: list[str] = []
    levels: list[_Level] = []
    for number, line in enumerate(re.split(r"(?<=\n)", text), 1):
        directive = _CONDITIONAL.match(line)
        keep = all(level.keep for level in levels)
        if directive is None:
            if keep:
                kept.append(line)
            continue
        word, condition = directive[1], re.split(r"/[/*]", directive[2])[0].strip()
        if word in {"if", "ifdef", "ifndef"}:
            resolved = word != "if" and condition == macro
            levels.append(_Level(number, resolved, not resolved or word == "ifndef"))
        elif not levels:
            raise BuildError(f"{name}:{number}: #{word} without #if")
        resolved = levels[-1].resolved
        in_condition = word not in {"else", "endif"} and re.search(rf"\b{macro}\b", condition)
        if (resolved and word.startswith("elif")) or (in_condition and not resolved):
            raise BuildError(f"{name}:{number}: test {macro} with #ifdef or #ifndef, #else and #endif only")
        if word == "else" and resolved:
            levels[-1].keep = not levels[-1].keep
        if word == "endif":
            levels.pop()
        if keep and not resolved:
            kept.append(line)
    if levels:
        raise BuildError(f"{name}:{levels[-1].line}: conditional without #endif")
    return "".join(kept)
