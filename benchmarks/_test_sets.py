"""The test images of each bundled model, how a result on them is judged, and which may be shown as pictures.

Test folders are never trained or tuned on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from _common import data_dir
from napari_unet_seg.core._matching import match_objects
from napari_unet_seg.core._rand import pieces, segment_agreement, thinned
from napari_unet_seg.core.predict_settings import PredictSettings

Image = NDArray[Any]
Labels = NDArray[np.integer[Any]]
Score = Literal["F1", "V_rand", "Dice"]


@dataclass(frozen=True)
class TestSet:
    """Test images for one model.

    Attributes
    ----------
    name
        Its folder.
    zoom, pixel_size_nm
        What is known of the images' size, given to the prediction.
    score
        F1 of objects at IoU 0.5; V_rand of the cells in a plane, borders thinned; mean Dice of the classes.
    credit
        Who made the images and under which licence; what has to stand below a picture of them.
    may_be_shown
        Whether that licence allows to publish pictures.
    """

    name: str
    model: str
    score: Score
    credit: str
    zoom: float | None = None
    pixel_size_nm: float | None = None
    may_be_shown: bool = True

    def settings(self) -> PredictSettings:
        """How its images are predicted."""
        return PredictSettings(zoom=self.zoom, pixel_size_nm=self.pixel_size_nm, device="cpu")

    def images(self) -> Iterator[tuple[str, Image, Labels]]:
        """Name, image (Y, X) and truth (Y, X) of each."""
        folder = data_dir() / self.name
        if (folder / "images").is_dir():
            for path in sorted((folder / "images").glob("*.tif")):
                yield (
                    path.stem,
                    tifffile.imread(path),
                    self._truth(tifffile.imread(folder / "labels" / path.name)),
                )
            return
        images, labels = (tifffile.imread(folder / f"{part}.tif") for part in ("images", "labels"))
        for number, (image, truth) in enumerate(zip(images, labels, strict=True)):
            yield f"plane {number}", image, self._truth(truth)

    def _truth(self, labels: Labels) -> Labels:
        """Small ids; of a plane of a volume each piece of a neuron is an object of its own."""
        if self.score == "Dice":
            return labels
        if self.score == "V_rand":
            return pieces(labels)
        ids, numbered = np.unique(labels, return_inverse=True)
        return numbered.reshape(labels.shape) + int(ids[0] != 0)

    def of(self, found: Labels, truth: Labels) -> float:
        """The score of a result (Y, X)."""
        if self.score == "F1":
            return match_objects(found, truth).f1()["0.5"]
        if self.score == "V_rand":
            return float(segment_agreement(thinned(found), truth).rand)
        return mean_dice(found, truth)


def mean_dice(found: Labels, truth: Labels) -> float:
    """Over the classes that occur, without the background; 1 where there is none."""
    classes = [number for number in np.union1d(found, truth) if number]
    dice = [
        2
        * np.count_nonzero((found == number) & (truth == number))
        / (np.count_nonzero(found == number) + np.count_nonzero(truth == number))
        for number in classes
    ]
    return float(np.mean(dice)) if dice else 1.0


TEST_SETS = (
    TestSet(
        "nuclei-dsb2018/test/fluo",
        "nuclei-fluorescence",
        "F1",
        "Data Science Bowl 2018, BBBC038v1, Broad Bioimage Benchmark Collection (Caicedo et al. 2019), CC0",
        zoom=1,
    ),
    TestSet(
        "nuclei-bbbc039/test",
        "nuclei-fluorescence",
        "F1",
        "BBBC039v1, Broad Bioimage Benchmark Collection (Caicedo et al. 2018), CC0",
        zoom=1,
    ),
    TestSet(
        "em-flyem-medulla/test",
        "em-boundaries",
        "V_rand",
        "HHMI Janelia FlyEM (Takemura et al. 2015, doi 10.1073/pnas.1509820112), CC BY 4.0; outlines added",
        pixel_size_nm=10,
    ),
    TestSet(
        "em-isbi2012/test",
        "em-boundaries",
        "V_rand",
        "ISBI 2012 challenge (Cardona et al. 2010): for research only, so no picture of it is shown",
        pixel_size_nm=4,
        may_be_shown=False,
    ),
    TestSet(
        "cells-phase-usiigaci/test",
        "cells-phase-contrast",
        "F1",
        "Usiigaci, OIST (Tsai et al. 2019), MIT; outlines added",
        zoom=0.5,
    ),
    TestSet(
        "axons-sem/test",
        "axons-sem",
        "Dice",
        "AxonDeepSeg SEM data (doi 10.5281/zenodo.5498378), MIT; outlines added",
        zoom=1,
    ),
)
