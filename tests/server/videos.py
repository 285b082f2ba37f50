"""Videos, and programs that decode them in the place of ffmpeg, which llama-server asks to."""

import json
import sys
from pathlib import Path

FPS = 8

_PROBE = """#!{python}
import json, sys
video = json.load(sys.stdin)
print(f"width={{video['width']}}\\nheight={{video['height']}}\\nr_frame_rate={fps}/1")
print(f"duration={{len(video['shades']) / {fps}}}")
"""
_DECODE = """#!{python}
import json, sys
wanted = next(float(word.removeprefix("fps=")) for word in sys.argv if word.startswith("fps="))
video = json.load(sys.stdin)
shades = video["shades"]
for number in range(int(len(shades) / {fps} * wanted)):
    shade = shades[int(number * {fps} / wanted)]
    sys.stdout.buffer.write(bytes([shade]) * (video["width"] * video["height"] * 3))
"""


def write_ffmpeg(directory: Path) -> list[str | Path]:
    """The programs; the options that have llama-server use them."""
    for name, source in (("ffprobe", _PROBE), ("ffmpeg", _DECODE)):
        program = directory / name
        program.write_text(source.format(python=sys.executable, fps=FPS), encoding="utf-8")
        program.chmod(0o755)
    return ["--video-ffmpeg-dir", directory]


def video(shades: list[int], width: int, height: int) -> bytes:
    """A file that only these programs know: FPS pictures a second, of one colour each."""
    return json.dumps({"width": width, "height": height, "shades": shades}).encode()
