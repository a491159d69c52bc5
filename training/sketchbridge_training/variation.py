"""The same change of place for a drawing and its photo."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess import Image


@dataclass(frozen=True)
class Variation:
    """Mirrored or not, then turned, scaled and shifted. matrix: (2, 3) float64, pixels of the source to the result's.

    One variation moves several pictures of one size alike. It changes no colours.
    """

    mirrored: bool
    matrix: NDArray[np.float64]

    @classmethod
    def drawn(cls, width: int, height: int, random: np.random.Generator) -> Variation:
        """Mirror half of the time, turn by up to 8 degrees, scale by 0.85 to 1.08, shift by up to 5 %."""
        mirrored = bool(random.random() < 0.5)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-8, 8), random.uniform(0.85, 1.08))
        shift = random.uniform(-0.05, 0.05) * width, random.uniform(-0.05, 0.05) * height
        return cls(mirrored, np.asarray(matrix + np.array([[0, 0, shift[0]], [0, 0, shift[1]]]), np.float64))

    def apply(self, picture: Image) -> Image:
        """Move a (H, W) or (H, W, 3) uint8 picture; its mirror image fills what comes into view. A copy.

        Any one colour would draw a frame around a picture that goes on to its border, and the sketches would have it.
        """
        height, width = picture.shape[:2]
        if self.mirrored:
            picture = np.ascontiguousarray(picture[:, ::-1])
        moved = cv2.warpAffine(picture, self.matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(moved, np.uint8)
