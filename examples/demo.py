"""The tour: starts Triton, sends it drawings and photos through the SDK, and leaves pictures to look at.

Run it with `make demo`; `python examples/demo.py --help` shows its options.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sketchbridge_client import Client, Picture, SketchbridgeError
from sketchbridge_server import PortUnavailable, ServeError, ServerConfig, TritonServer
from sketchbridge_server.serving import StopSignals, announcement

ROOT = Path(__file__).resolve().parent.parent
SKETCHES = sorted((ROOT / "examples" / "sketches").glob("*.png"))
PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")  # real photos that scikit-image ships
METHODS = ("canny", "xdog", "dodge", "laplacian")
CELL = 256
CAPTION = 26
MARGIN = 12


@dataclass(frozen=True)
class Cell:
    """One picture of the contact sheet and what is written under it."""

    picture: Image.Image
    caption: str


def main() -> int:
    """Run the tour; the exit status is 0 if every picture was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="stop after the pictures, and use free ports")
    parser.add_argument("--output", type=Path, default=ROOT / "out", help="folder for the pictures (default: out)")
    arguments = parser.parse_args()
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0} if arguments.once else {}
    config = ServerConfig(repositories=(ROOT / "model_repository",), **ports)

    try:
        with StopSignals() as signals:
            print("Starting Triton ...", flush=True)
            server = TritonServer(config)
            began = time.monotonic()
            server.start()
            try:
                models = server.wait_until_ready(cancelled=signals.stop_wanted)
                seconds = time.monotonic() - began
                print(announcement(models, server.endpoints, seconds=seconds, no_gpu=server.has_no_gpu), flush=True)
                with Client(server.endpoints.grpc_url) as client:
                    gallery = tour(client, arguments.output)
                print(f"wrote: `{gallery}`", flush=True)
                if not arguments.once:
                    print("Serving until Ctrl-C.", flush=True)
                    while not signals.stop_wanted():
                        server.check_alive()
                        time.sleep(0.2)
            finally:
                server.stop()
    except PortUnavailable as exc:
        print(
            f"demo: port {exc.port} is taken. End what uses it, or run `make demo ONCE=1`, which takes free ports.",
            file=sys.stderr,
        )
        return 1
    except (ServeError, SketchbridgeError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    return 0


def tour(client: Client, output: Path) -> Path:
    """Paint, draw and go both ways; save every picture below `output` and return the path of the contact sheet."""
    folders = {name: output / name for name in ("paint", "sketch", "roundtrip")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)

    client.paint(SKETCHES[0], model="shoes")  # the first request pays for what is loaded on demand

    rows: list[tuple[str, list[Cell]]] = []
    drawings, paintings = [], []
    for path in SKETCHES:
        painted = client.paint(path, model="shoes")
        painted.save(folders["paint"] / f"{path.stem}.png")
        drawings.append(Cell(_open(path), path.stem.replace("_", " ")))
        paintings.append(Cell(painted.pil, _took(painted)))
    rows += [("Sketch to photo: hand drawings ...", drawings), ("... painted as shoes", paintings)]

    for name in PHOTOS:
        photo = Path(str(files("skimage.data") / name))
        cells = [Cell(_open(photo), photo.stem)]
        for method in METHODS:
            drawn = client.sketch(photo, method=method)
            drawn.save(folders["sketch"] / f"{photo.stem}_{method}.png")
            cells.append(Cell(drawn.pil, f"{method}, {_took(drawn)}"))
        rows.append(("Photo to sketch" if name == PHOTOS[0] else "", cells))

    cells = []
    for path in [folders["paint"] / f"{sketch.stem}.png" for sketch in SKETCHES[:2]]:
        both = client.roundtrip(path, model="shoes")
        both.save(folders["roundtrip"], stem=path.stem)
        cells += [
            Cell(_open(path), path.stem.replace("_", " ")),
            Cell(both.sketch.pil, "its sketch"),
            Cell(both.photo.pil, f"painted again, {_took(both.photo)}"),
        ]
    rows.append(("Photo to sketch to photo, in one request", cells))
    return contact_sheet(rows, output / "gallery.png")


def contact_sheet(rows: list[tuple[str, list[Cell]]], path: Path) -> Path:
    """Write all rows of pictures, each under its title, as one PNG."""
    columns = max(len(cells) for _, cells in rows)
    width = MARGIN + columns * (CELL + MARGIN)
    title_height = 40
    height = MARGIN + sum((title_height if title else 0) + CELL + CAPTION + MARGIN for title, _ in rows)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for title, cells in rows:
        if title:
            draw.text((MARGIN, top + 4), title, fill="black", font=ImageFont.load_default(22))
            top += title_height
        for number, cell in enumerate(cells):
            left = MARGIN + number * (CELL + MARGIN)
            thumbnail = cell.picture.copy()
            thumbnail.thumbnail((CELL, CELL))
            sheet.paste(thumbnail, (left + (CELL - thumbnail.width) // 2, top + (CELL - thumbnail.height) // 2))
            draw.rectangle((left - 1, top - 1, left + CELL, top + CELL), outline="#cccccc")
            draw.text((left, top + CELL + 4), cell.caption, fill="#444444", font=ImageFont.load_default(15))
        top += CELL + CAPTION + MARGIN
    beside = path.with_name(f".{path.name}")
    sheet.save(beside, "PNG")
    return beside.replace(path)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _took(picture: Picture) -> str:
    return f"{picture.elapsed_s * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
