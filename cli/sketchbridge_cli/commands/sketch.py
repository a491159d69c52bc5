"""`sketchbridge sketch`: photos in, drawings out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sketchbridge_cli.options import add_method, method_parameters
from sketchbridge_cli.picture_format import OutputFormat
from sketchbridge_cli.pictures import Verb, add_pictures, run_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sketchbridge_client import Client, Picture

_DESCRIPTION = """Draw the lines of each photo, dark on white.

The drawing of `photo.jpg` is called `photo_sketch.png`, or `photo_<method>.png` with --method, and lies beside it,
unless --output says otherwise. An input is never overwritten. One that fails stops no other.

A folder as INPUT means every picture file in it, in natural order; hidden files are passed over. What is done is noted
in `.sketchbridge/` in the folder that is written to, so the same command goes on where it was stopped, and does anew
only what has changed."""

_EXAMPLES = """examples:
  sketchbridge sketch photo.jpg
  sketchbridge sketch photo.jpg --method xdog --set sigma=0.8 -o drawing.png
  sketchbridge sketch photos/*.jpg --method canny --set low_threshold=50 -o drawings/
  sketchbridge sketch photos/ -o drawings/ --recursive --jobs 8
  cat photo.jpg | sketchbridge sketch - > drawing.png

exit status: 0 done, 1 a picture failed, 2 the call was wrong, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to argparse."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    add_pictures(
        parser,
        inputs="a photo (PNG, JPEG, WebP or BMP), or a folder of them; `-` reads one from stdin",
        output="file, or folder for several (made if its parent is there); `-` writes to stdout",
    )
    add_method(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sketch every input and return the exit status."""
    parameters = method_parameters(arguments)

    def work(client: Client, source: bytes | str, output_format: OutputFormat) -> Mapping[str, Picture]:
        drawing = client.sketch(
            source,
            method=arguments.method,
            output_format=output_format,
            quality=arguments.quality,
            **parameters,
        )
        return {"sketch": drawing}

    labels = {"sketch": arguments.method or "sketch"}
    return run_pictures(arguments, Verb("sketch", "sketched", labels, work, parameters))
