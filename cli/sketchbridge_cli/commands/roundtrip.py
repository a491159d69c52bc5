"""`sketchbridge roundtrip`: photos in, their drawings and the photos painted from those out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sketchbridge_cli.options import add_fitting, add_method, method_parameters
from sketchbridge_cli.picture_format import OutputFormat
from sketchbridge_cli.pictures import Verb, add_pictures, run_pictures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sketchbridge_client import Client, Picture

_DESCRIPTION = """Draw the lines of each photo, and paint a photo from them again.

Of `photo.jpg` there come `photo_<model>_sketch.png` and `photo_<model>_photo.png`, beside it or in --output.
An input that fails stops no other.

A folder as INPUT means every picture file in it, in natural order; hidden files are passed over. What is done is noted
in `.sketchbridge/` in the folder that is written to, so the same command goes on where it was stopped, and does anew
only what has changed."""

_EXAMPLES = """examples:
  sketchbridge roundtrip photo.jpg --model shoes
  sketchbridge roundtrip photos/*.jpg --model shoes --method xdog --set sigma=0.8 -o there_and_back/
  sketchbridge roundtrip photos/ --model shoes -o there_and_back/ --recursive --jobs 8

exit status: 0 done, 1 a picture failed, 2 the call was wrong, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to argparse."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    add_pictures(
        parser,
        inputs="a photo (PNG, JPEG, WebP or BMP), or a folder of them; `-` reads one from stdin",
        output="folder for both pictures (made if its parent is there)",
    )
    parser.add_argument("--model", default="shoes", help="the painter, see `sketchbridge models` (default: shoes)")
    add_method(parser)
    add_fitting(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take every input there and back and return the exit status."""
    parameters = method_parameters(arguments)
    labels = {"sketch": f"{arguments.model}_sketch", "photo": f"{arguments.model}_photo"}

    def work(client: Client, source: bytes | str, output_format: OutputFormat) -> Mapping[str, Picture]:
        both = client.roundtrip(
            source,
            model=arguments.model,
            method=arguments.method,
            fit=arguments.fit,
            normalise=arguments.normalise,
            output_format=output_format,
            quality=arguments.quality,
            **parameters,
        )
        return {"sketch": both.sketch, "photo": both.photo}

    return run_pictures(arguments, Verb("roundtrip", "drew and repainted", labels, work, parameters))
