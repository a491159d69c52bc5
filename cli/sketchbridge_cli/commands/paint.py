"""`sketchbridge paint`: drawings in, photos out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sketchbridge_cli.options import add_fitting
from sketchbridge_cli.picture_format import OutputFormat
from sketchbridge_cli.pictures import Verb, add_pictures, run_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sketchbridge_client import Client, Picture

_DESCRIPTION = """Paint a photo from each drawing.

The photo of `drawing.png` is called `drawing_<model>.png` and lies beside it, unless --output says otherwise.
An input is never overwritten. One that fails stops no other.

A folder as INPUT means every picture file in it, in natural order; hidden files are passed over. What is done is noted
in `.sketchbridge/` in the folder that is written to, so the same command goes on where it was stopped, and does anew
only what has changed."""

_EXAMPLES = """examples:
  sketchbridge paint drawing.png
  sketchbridge paint drawing.png --model shoes -o photo.jpg
  sketchbridge paint drawings/*.png --model shoes -o photos/
  sketchbridge paint drawings/ --model shoes -o photos/ --jobs 8
  sketchbridge paint drawings/ more_drawings/ boot.png -o photos/ --recursive --json > made.json
  cat drawing.png | sketchbridge paint - > photo.png

exit status: 0 done, 1 a picture failed, 2 the call was wrong, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to argparse."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    add_pictures(
        parser,
        inputs="a drawing (PNG, JPEG, WebP or BMP), or a folder of them; `-` reads one from stdin",
        output="file, or folder for several (made if its parent is there); `-` writes to stdout",
    )
    parser.add_argument("--model", default="shoes", help="the painter, see `sketchbridge models` (default: shoes)")
    add_fitting(parser)


def run(arguments: argparse.Namespace) -> int:
    """Paint every input and return the exit status."""

    def work(client: Client, source: bytes | str, output_format: OutputFormat) -> Mapping[str, Picture]:
        photo = client.paint(
            source,
            model=arguments.model,
            fit=arguments.fit,
            normalise=arguments.normalise,
            output_format=output_format,
            quality=arguments.quality,
        )
        return {"photo": photo}

    return run_pictures(arguments, Verb("paint", "painted", {"photo": arguments.model}, work, {}))
