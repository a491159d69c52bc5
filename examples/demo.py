"""The tour: starts Triton, sends it drawings and photos through the SDK, and leaves pictures to look at.

Run it with `make demo`; `python examples/demo.py --help` shows its options. What it leaves:

gallery.png     every picture of the tour
overview.png    a row for each model that paints: three hand drawings and their paintings
paint/          what was painted from the hand drawings, a folder for each model
sketch/         photos drawn by each method
roundtrip/      paintings drawn and painted again
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from contact_sheet import Cell, Row, contact_sheet
from PIL import Image

from sketchbridge_client import Client, ModelInfo, ModelKind, Picture, SketchbridgeError
from sketchbridge_server import PortUnavailable, ServeError, ServerConfig, TritonServer
from sketchbridge_server.serving import StopSignals, announcement

ROOT = Path(__file__).resolve().parent.parent
SKETCHES = ROOT / "examples" / "sketches"
PHOTOS = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")  # real photos that scikit-image ships
METHODS = ("canny", "xdog", "dodge", "laplacian")
COLUMNS = 6
OVERVIEW_PAIRS = 3
OVERVIEW_SIDE_PX = 168  # six columns in the width of a README


@dataclass(frozen=True)
class Painting:
    """A hand drawing, and where the picture that `model` painted from it was saved."""

    model: str
    drawing: Path
    saved: Path
    elapsed_s: float


def main() -> int:
    """Run the tour; the exit status is 0 if every picture was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="stop after the pictures, and use free ports")
    parser.add_argument("--output", type=Path, default=ROOT / "out", help="folder for the pictures (default: out)")
    parser.add_argument(
        "--repository",
        type=Path,
        default=ROOT / "model_repository",
        help="model repository to serve (default: model_repository)",
    )
    arguments = parser.parse_args()
    repositories = (arguments.repository,)

    try:
        config = ServerConfig(repositories=repositories)
        if arguments.once:
            config = ServerConfig(repositories=repositories, http_port=0, grpc_port=0, metrics_port=0)
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
                    written = tour(client, arguments.output)
                for path in written:
                    print(f"wrote: `{path}`", flush=True)
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


def tour(client: Client, output: Path) -> list[Path]:
    """Paint, draw and go both ways; save every picture below `output` and return the paths of the contact sheets."""
    drawn = hand_drawings(SKETCHES)
    models = client.models()
    for sentence in unmatched(drawn, models):
        print(sentence, flush=True)
    painted = [paint(client, name, drawn[name], output / "paint" / name) for name in paintable(drawn, models)]

    rows = [row for paintings in painted for row in painting_rows(paintings)]
    rows += sketch_rows(client, output / "sketch")
    rows += roundtrip_rows(client, [paintings[0] for paintings in painted], output / "roundtrip")
    sheets = [contact_sheet(rows, output / "gallery.png")]
    if painted:
        overview = [overview_row(paintings) for paintings in painted]
        sheets.append(contact_sheet(overview, output / "overview.png", side=OVERVIEW_SIDE_PX))
    return sheets


def hand_drawings(folder: Path) -> dict[str, list[Path]]:
    """The drawings (PNG) in each folder of `folder`, by the folder's name, which is that of the model they are for."""
    found = {below.name: sorted(below.glob("*.png")) for below in sorted(folder.iterdir()) if below.is_dir()}
    return {name: drawings for name, drawings in found.items() if drawings}


def paintable(drawn: dict[str, list[Path]], models: Sequence[ModelInfo]) -> list[str]:
    """Names of the models that are ready to paint and have drawings."""
    painters = {model.name for model in models if model.ready and model.kind is ModelKind.PAINTER}
    return [name for name in drawn if name in painters]


def unmatched(drawn: dict[str, list[Path]], models: Sequence[ModelInfo]) -> list[str]:
    """A sentence for each folder of drawings without a model to paint them, and each model without drawings."""
    sentences = []
    ready = paintable(drawn, models)
    for name, drawings in drawn.items():
        if name in ready:
            continue
        reasons = [f" ({model.reason})" for model in models if model.name == name and not model.ready]
        listed = ", ".join(path.stem for path in drawings)
        sentences.append(f"No model `{name}` is served{''.join(reasons)}, so these stay unpainted: {listed}.")
    painters = [model.name for model in models if model.ready and model.kind is ModelKind.PAINTER]
    return sentences + [
        f"There are no drawings for `{name}`: put PNG into `examples/sketches/{name}`."
        for name in painters
        if name not in drawn
    ]


def paint(client: Client, model: str, drawings: Sequence[Path], folder: Path) -> list[Painting]:
    """Have each drawing painted and saved in `folder`."""
    print(f"Painting {len(drawings)} drawings as {model} ...", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    client.paint(drawings[0], model=model)  # the first request pays for what is loaded on demand
    paintings = []
    for drawing in drawings:
        picture = client.paint(drawing, model=model)
        saved = folder / f"{drawing.stem}.png"
        picture.save(saved)
        paintings.append(Painting(model, drawing, saved, picture.elapsed_s))
    return paintings


def painting_rows(paintings: Sequence[Painting]) -> list[Row]:
    """A row of drawings and one of their paintings; twice as many when they are more than a sheet is wide."""
    rows = []
    for first in range(0, len(paintings), COLUMNS):
        some = paintings[first : first + COLUMNS]
        title = f"Sketch to photo: hand drawings, and what `{some[0].model}` paints from them" if first == 0 else ""
        rows.append(Row(title, [Cell(_open(one.drawing), one.drawing.stem.replace("_", " ")) for one in some]))
        rows.append(Row("", [Cell(_open(one.saved), f"{one.elapsed_s * 1000:.0f} ms") for one in some]))
    return rows


def overview_row(paintings: Sequence[Painting]) -> Row:
    """Some drawings, spread over all, each followed by its painting."""
    count = min(OVERVIEW_PAIRS, len(paintings))
    chosen = [paintings[number * len(paintings) // count] for number in range(count)]
    return Row(chosen[0].model, [Cell(_open(path), "") for one in chosen for path in (one.drawing, one.saved)])


def sketch_rows(client: Client, folder: Path) -> list[Row]:
    """A row for each photo: the photo, then its drawing by each method."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in PHOTOS:
        photo = Path(str(files("skimage.data") / name))
        cells = [Cell(_open(photo), photo.stem)]
        for method in METHODS:
            drawn = client.sketch(photo, method=method)
            drawn.save(folder / f"{photo.stem}_{method}.png")
            cells.append(Cell(drawn.pil, f"{method}, {_took(drawn)}"))
        rows.append(Row("Photo to sketch" if name == PHOTOS[0] else "", cells))
    return rows


def roundtrip_rows(client: Client, paintings: Sequence[Painting], folder: Path) -> list[Row]:
    """Each painting, the sketch made of it, and what its model paints from that."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for painting in paintings:
        both = client.roundtrip(painting.saved, model=painting.model)
        both.save(folder, stem=f"{painting.model}_{painting.saved.stem}")
        cells += [
            Cell(_open(painting.saved), f"{painting.model}: {painting.saved.stem.replace('_', ' ')}"),
            Cell(both.sketch.pil, "its sketch"),
            Cell(both.photo.pil, f"painted again, {_took(both.photo)}"),
        ]
    title = "Photo to sketch to photo, in one request"
    return [Row("" if first else title, cells[first : first + COLUMNS]) for first in range(0, len(cells), COLUMNS)]


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _took(picture: Picture) -> str:
    return f"{picture.elapsed_s * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
