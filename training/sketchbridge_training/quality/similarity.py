"""How near a painting is to the very photo its drawing was made from."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sketchbridge_preprocess import Image
from sketchbridge_training.errors import DataInvalid

_GRADIENT_CONSTANT = 170.0  # for levels up to 255, as in the authors' code


@dataclass(frozen=True)
class Similarity:
    """ssim, gradients: at most 1, for equal pictures. psnr_db: infinite for equal pictures."""

    ssim: float
    psnr_db: float
    gradients: float


def similarity(painting: Image, photo: Image) -> Similarity:
    """Compare two (H, W, 3) RGB uint8 pictures of one size, at least 11 pixels a side. Raises DataInvalid for others.

    SSIM: Wang, Bovik, Sheikh and Simoncelli 2004, Gaussian window of 1.5 pixels, mean of the three channels. SSIM and
    PSNR by scikit-image.
    """
    if painting.shape != photo.shape or painting.ndim != 3 or min(painting.shape[:2]) < 11:
        raise DataInvalid(f"Pictures are {painting.shape} and {photo.shape}; expected two (H, W, 3) of one size.")
    ssim = structural_similarity(  # type: ignore[no-untyped-call]
        photo, painting, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    with np.errstate(divide="ignore"):  # equal pictures: infinite
        psnr_db = peak_signal_noise_ratio(photo, painting, data_range=255)  # type: ignore[no-untyped-call]
    return Similarity(float(ssim), float(psnr_db), gradient_similarity(painting, photo))


def gradient_similarity(painting: Image, photo: Image) -> float:
    """Mean gradient magnitude similarity, in (0, 1]: whether edges are as strong, in the same places.

    painting, photo: (H, W, 3) RGB uint8 of one size.
    Luma, halved by 2x2 averages, Prewitt gradients / 3, then (2 a b + c) / (a^2 + b^2 + c) with c = 170.
    Source: Xue, Zhang, Mou and Bovik, "Gradient Magnitude Similarity Deviation", IEEE TIP 2014, equations 1 to 5. The
    mean is their GMSM, not the deviation GMSD.
    """
    a, b = _gradient_magnitude(painting), _gradient_magnitude(photo)
    return float(((2 * a * b + _GRADIENT_CONSTANT) / (a * a + b * b + _GRADIENT_CONSTANT)).mean())


def _gradient_magnitude(image: Image) -> npt.NDArray[np.float64]:
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    height, width = luma.shape
    halved = luma[: height // 2 * 2, : width // 2 * 2].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    across = np.array([[1, 0, -1]] * 3) / 3
    dx = cv2.filter2D(halved, cv2.CV_64F, across, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.filter2D(halved, cv2.CV_64F, across.T, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(np.hypot(dx, dy), np.float64)
