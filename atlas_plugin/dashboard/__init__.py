"""The page of the dashboard: one HTML document, made of the files beside this one."""

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

_STYLE = re.compile(r'<link rel="stylesheet" href="(\w+\.css)">')
_SCRIPT = re.compile(r'<script src="(\w+\.js)"></script>')


@dataclass(frozen=True)
class Page:
    """`html` needs nothing but itself; `policy`, its Content-Security-Policy, lets it run nothing else."""

    html: str
    policy: str

    @classmethod
    def assemble(cls) -> "Page":
        """Put style and scripts in the place of the links to them. Raises OSError when a file is missing."""
        html = _read("page.html")
        styles = [_read(name) for name in _STYLE.findall(html)]
        scripts = [_read(name) for name in _SCRIPT.findall(html)]
        html = _STYLE.sub(lambda match: f"<style>{_read(match[1])}</style>", html)
        html = _SCRIPT.sub(lambda match: f"<script>{_read(match[1])}</script>", html)
        policy = (
            f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return cls(html, policy)


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hashes(texts: list[str]) -> str:
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts)
