"""What may be said of the data, in words; apart, so that the command line needs no OpenCV to offer them."""

from __future__ import annotations

from typing import Literal

Paired = Literal["auto", "no", "side-by-side", "folders"]
"""What a folder must hold: photos alone ("no"), pairs in one picture each, pairs in two folders, or anything."""

Direction = Literal["AtoB", "BtoA"]
"""Which of a pair is the drawing: A, on the left or in the first folder, or B. As in pytorch-CycleGAN-and-pix2pix."""

Drawings = Literal["auto", "lines", "as-is"]
"""Whether the drawings of pairs are redrawn as the server redraws what it is sent, or not, or as they look."""
