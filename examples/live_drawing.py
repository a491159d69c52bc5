"""Draw a sketch stroke by stroke while a running server paints it, and keep what a screen would have shown.

    sketchbridge serve &
    python examples/live_drawing.py
    python examples/live_drawing.py examples/sketches/cats/tabby_pencil.svg --model cats --output cat.webp

The result is an animated picture, the sketch on the left and the newest photo on the right. It is drawn in real time:
where painting takes longer than a frame, strokes are left out on the way to the server, as for a hand that draws.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from PIL import Image

from sketchbridge_client import Client, SketchbridgeError

SKETCHES = Path(__file__).resolve().parent / "sketches"
SIDE_PX = 256
PEN_PX = 3
HOLD_FRAMES = 15  # the finished drawing, at the end

Point = tuple[float, float]


def main() -> int:
    """Draw; the exit status is 0 if the animation was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sketch", type=Path, nargs="?", default=SKETCHES / "shoes" / "sneaker_felt_pen.svg")
    parser.add_argument("--model", default="shoes", help="who paints (default: shoes)")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server (default: 127.0.0.1:8001)")
    parser.add_argument("--output", type=Path, default=Path("live.gif"), help="a .gif or .webp (default: live.gif)")
    parser.add_argument("--seconds", type=float, default=6, help="how long the hand draws (default: 6)")
    parser.add_argument("--frames-per-second", type=int, default=12, help="of drawing and animation (default: 12)")
    arguments = parser.parse_args()
    if arguments.output.suffix not in {".gif", ".webp"}:
        parser.error(f"`--output` is `{arguments.output}`; expected a name that ends in .gif or .webp.")

    frame_s = 1 / arguments.frames_per_second
    lines = list(polylines(arguments.sketch))
    total_px = sum(math.dist(*ends) for line in lines for ends in pairwise(line))
    try:
        with Client(arguments.url) as client, client.live(arguments.model, size_px=SIDE_PX) as drawing:
            drawing.clear()  # has the white sheet painted, so that there is a photo from the start
            photo = next(drawing)
            screen = [side_by_side(drawing.canvas, photo.pil)]
            due = time.monotonic()
            for pieces in by_frame(lines, total_px * frame_s / arguments.seconds):
                for piece in pieces:
                    drawing.stroke(piece, width_px=PEN_PX)
                due += frame_s
                time.sleep(max(0.0, due - time.monotonic()))
                photo = drawing.latest or photo
                screen.append(side_by_side(drawing.canvas, photo.pil))
            drawing.finish()
            screen += [side_by_side(drawing.canvas, photo.pil) for photo in drawing]
            print(f"{drawing.painted} painted, {drawing.dropped} left out, {drawing.failed} failed")
    except SketchbridgeError as exc:
        print(f"live_drawing: {exc}", file=sys.stderr)
        return 1
    screen += screen[-1:] * HOLD_FRAMES
    beside = arguments.output.with_name(f".{arguments.output.name}")
    screen[0].save(
        beside,
        format=arguments.output.suffix[1:],
        save_all=True,
        append_images=screen[1:],
        duration=round(1000 * frame_s),
        loop=0,
    )
    beside.replace(arguments.output)
    print(f"wrote: `{arguments.output}`")
    return 0


def polylines(svg: Path) -> Iterator[list[Point]]:
    """The strokes of an SVG as lines on a sheet of SIDE_PX. It knows what shipped sketches use: M, L, H, V, C and Z."""
    text = svg.read_text(encoding="utf-8")
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 (\S+) (\S+)"', text)[0])
    scale = SIDE_PX / max(width, height)
    left, top = (SIDE_PX - width * scale) / 2, (SIDE_PX - height * scale) / 2
    for path in re.findall(r'<path[^>]* d="([^"]+)"', text):
        for stroke in re.findall(r"M[^M]+", path):
            yield [(left + x * scale, top + y * scale) for x, y in flattened(stroke)]


def flattened(stroke: str) -> list[Point]:
    """The points of one stroke, whose curves are cut into short lines."""
    points: list[Point] = []
    for command, text in re.findall(r"([MLHVCZ])([^MLHVCZ]*)", stroke):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
        if command == "H":
            points.append((numbers[0], points[-1][1]))
        elif command == "V":
            points.append((points[-1][0], numbers[0]))
        elif command == "Z":
            points.append(points[0])
        elif command == "C":
            for first in range(0, len(pairs), 3):
                points += curve(points[-1], *pairs[first : first + 3])
        else:
            points += pairs
    return points


def curve(a: Point, b: Point, c: Point, d: Point, *, steps: int = 12) -> list[Point]:
    """Points along a cubic Bezier curve, without its first one."""
    points = []
    for step in range(1, steps + 1):
        t = step / steps
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        x, y = (math.fsum(w * v for w, v in zip(weights, axis, strict=True)) for axis in zip(a, b, c, d, strict=True))
        points.append((x, y))
    return points


def by_frame(lines: list[list[Point]], frame_px: float) -> Iterator[list[list[Point]]]:
    """What the hand draws in each frame: pieces of the lines, about `frame_px` long together."""
    pieces: list[list[Point]] = []
    room_px = frame_px
    for line in lines:
        piece = line[:1]
        for point in line[1:]:
            room_px -= math.dist(piece[-1], point)
            piece.append(point)
            if room_px <= 0:
                yield [*pieces, piece]
                pieces, piece, room_px = [], [point], room_px + frame_px
        pieces.append(piece)
    yield pieces


def side_by_side(sketch: Image.Image, photo: Image.Image) -> Image.Image:
    """Both on one sheet, the sketch on the left."""
    sheet = Image.new("RGB", (2 * SIDE_PX, SIDE_PX))
    sheet.paste(sketch, (0, 0))
    sheet.paste(photo.resize((SIDE_PX, SIDE_PX)), (SIDE_PX, 0))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
