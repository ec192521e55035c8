"""Goes through the tutorial in the real window, by mouse and keyboard, and takes its pictures on the way.

The person who paints knows the truth: strokes follow the middle of cells in the labels that come with the
data. Everything else is what docs/tutorial.md tells its reader to do.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scripts.hand import Hand, strokes_through
from skimage.measure import find_contours, label
from skimage.segmentation import find_boundaries

from napari_unet_seg._demo import LABELS_OPACITY, WINDOW_PX, settle
from napari_unet_seg._private_display import has_display
from napari_unet_seg.core.atomic import write_atomically

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGES = REPOSITORY / "docs" / "images"
DATA = Path(os.environ.get("NAPARI_UNET_SEG_DATA", REPOSITORY.parent / "shared" / "data"))

N_OBJECTS, N_BACKGROUND_STROKES = 14, 16
NOISE_SD, BLUR_PX = 28.0, 1.0
"""Of the quick scan that the pictures show: grey levels of 256, and pixels."""


@dataclass(frozen=True)
class Subject:
    """Data to go through the tutorial with.

    Attributes
    ----------
    voxel_size_nm
        Of Z, Y and X.
    plane
        Which one is painted.
    view
        Rows and columns that the pictures show.
    cell_brush_px, membrane_brush_px
        How thick strokes are.
    n_filled
        Cells that are painted up to their membrane.
    """

    voxel_size_nm: tuple[str, str, str]
    plane: int
    view: tuple[slice, slice]
    cell_brush_px: int
    membrane_brush_px: int
    n_filled: int


SUBJECTS = {
    "em-flyem-medulla": Subject(("10", "10", "10"), 60, np.s_[4:246, 40:214], 5, 2, 6),
    "em-isbi2012": Subject(("50", "4", "4"), 7, np.s_[130:410, 130:330], 7, 3, 0),
}


def main() -> None:
    arguments = _arguments()
    folder = DATA / arguments.data / "train"
    if not folder.is_dir():
        sys.exit(f"The data of the tutorial are not in {folder}: set NAPARI_UNET_SEG_DATA to where they are.")
    if not has_display():
        sys.exit("The tutorial needs a display: run `make screenshots`.")
    if arguments.pictures == IMAGES and arguments.data != "em-flyem-medulla":
        sys.exit(f"Pictures of {arguments.data} may not be published: name another folder with --pictures.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        # Neither settings nor models of the person who takes the pictures.
        os.environ["NAPARI_CONFIG"] = str(Path(home) / "settings.yaml")
        os.environ["NAPARI_UNET_SEG_HOME"] = str(Path(home) / "models")
        path, truth = prepared(arguments.data, folder, Path(home))
        Walk(path, truth, SUBJECTS[arguments.data], arguments.pictures, arguments.steps).all_of_it()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=SUBJECTS, default="em-flyem-medulla")
    parser.add_argument("--pictures", type=Path, default=IMAGES, help="folder for the pictures")
    parser.add_argument("--steps", type=int, help="of training, instead of those of the quick preset")
    return parser.parse_args()


def prepared(name: str, folder: Path, home: Path) -> tuple[Path, NDArray[np.int_]]:
    """The stack that is opened, and the cells (Y, X) of the plane that is painted."""
    images, labels = folder / "images.tif", tifffile.imread(folder / "labels.tif")[SUBJECTS[name].plane]
    if name == "em-isbi2012":
        return images, labels
    path = home / "quick scan.tif"
    tifffile.imwrite(path, quick_scan(tifffile.imread(images)))
    inside = np.where(find_boundaries(labels, mode="thick"), 0, labels)
    return path, label(inside, connectivity=1)


def quick_scan(stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a microscope would see in less time: noise, and less sharp."""
    noise = np.random.default_rng(0).normal(0, NOISE_SD, stack.shape)
    scanned = ndimage.gaussian_filter(stack.astype(float), (0, BLUR_PX, BLUR_PX)) + noise
    return np.clip(scanned, 0, 255).astype(np.uint8)


@dataclass
class Walk:
    """One way through the tutorial.

    Attributes
    ----------
    path
        The stack.
    truth
        (Y, X) cells of the plane that is painted, 0 between them.
    pictures
        Folder for them.
    steps
        Of training; None: as the quick preset says.
    """

    path: Path
    truth: NDArray[np.int_]
    subject: Subject
    pictures: Path
    steps: int | None

    def __post_init__(self) -> None:
        import napari

        self.viewer = napari.Viewer(title="napari", show=True)
        self.viewer.window.resize(*WINDOW_PX)
        self.hand = Hand(self.viewer, patience_s=7200)

    def all_of_it(self) -> None:
        """The loop from end to end."""
        self.open()
        self.segment("tutorial-segment.png")
        self.annotate()
        self.look_at_the_weight_map()
        self.fine_tune()
        self.compare()
        self.keep()
        self.segment("tutorial-again.png")
        self.viewer.close()

    def open(self) -> None:
        dock = self.hand.dock("Open")
        os.chdir(self.path.parent)  # a short name in the picture
        dock.look(self.path.name)
        self.hand.wait_until(lambda: not dock.is_busy and not dock.found.isHidden(), "the file is looked at")
        for axis, size in zip("ZYX", self.subject.voxel_size_nm, strict=True):
            line = dock.voxel.lines[axis]
            line.setFocus()
            line.setText(size)
        self.hand.wait_until(dock.open_button.isEnabled, "the file can be opened")
        self.hand.click(dock.open_button)
        self.hand.wait_until(lambda: not dock.is_busy and len(self.viewer.layers) > 0, "it is open")
        self.viewer.dims.set_current_step(0, self.subject.plane)
        self._look_at_a_part()
        self._keep("tutorial-open.png")

    def segment(self, name: str) -> None:
        dock = self.hand.dock("Segment")
        self.hand.wait_until(lambda: dock.is_ready and bool(dock.why.text()), "the model is loaded")
        self.hand.click(dock.button)
        self.hand.wait_until(lambda: dock.job is None and dock.is_settled, "it is segmented")
        labels = self.viewer.layers[-1]
        labels.opacity = LABELS_OPACITY
        self._look_at_a_part()
        self._keep(name)
        labels.visible = False

    def annotate(self) -> None:
        dock = self.hand.dock("Annotate")
        self._look_at_a_part()  # the docks have grown since
        for one in self._cells():
            self.hand.key("N")
            labels = dock.layers.labels_layer
            labels.brush_size = self.subject.cell_brush_px
            inner = ndimage.binary_erosion(self.truth == one, iterations=self.subject.cell_brush_px - 1)
            self.hand.stroke(labels, strokes_through(self._in_view(inner))[0])
            if one in self._filled_cells():
                for line in outlines(self._in_view(self.truth == one), labels.brush_size / 2):
                    self.hand.stroke(labels, line)
        self.hand.key("G")
        labels.brush_size = self.subject.membrane_brush_px
        near = ndimage.binary_dilation(np.isin(self.truth, self._cells()), iterations=8)
        membranes = self._in_view((self.truth == 0) & near)
        for stroke in strokes_through(membranes, most=N_BACKGROUND_STROKES):
            self.hand.stroke(labels, stroke)
        self.hand.wait_until(lambda: dock.annotating.counts.is_settled, "it is counted")
        self._keep("tutorial-annotate.png")

    def look_at_the_weight_map(self) -> None:
        self.hand.key("W")
        settle(1500)
        self._keep("tutorial-weight-map.png")
        self.hand.key("W")

    def fine_tune(self) -> None:
        dock = self.hand.dock("Fine-tune")
        annotate = self.hand.dock("Annotate")
        self.hand.click(annotate.button)
        self.hand.wait_until(lambda: dock.is_ready, "it is ready")
        if self.steps is not None:
            dock.more.steps.setValue(self.steps)
        self.hand.click(dock.button)
        bar = dock.progress.bar
        self.hand.wait_until(
            lambda: dock.job is None or (len(dock.curves.scores.x) > 1 and 2 * bar.value() > bar.maximum()),
            "half of it is learned",
        )
        self._keep("tutorial-fine-tune.png")
        self.hand.wait_until(lambda: dock.job is None, "it has learned")

    def compare(self) -> None:
        dock = self.hand.dock("Fine-tune")
        comparison = dock.fine_tuning.comparison
        if comparison is None:
            sys.exit(f"Nothing better was found: {dock.result.verdict.text()}")
        self.hand.wait_until(lambda: not comparison.is_running, "both models have seen the view")
        self._hide_strokes()
        self.hand.click(dock.result.before)
        self._keep("tutorial-before.png")
        self.hand.click(dock.result.after)
        self._keep("tutorial-after.png")

    def keep(self) -> None:
        dock = self.hand.dock("Fine-tune")
        self.hand.click(dock.result.keep)
        self.hand.wait_until(lambda: dock.fine_tuning.saved is not None, "it is saved")
        dock.fine_tuning.leave()

    def _hide_strokes(self) -> None:
        for layer in self.viewer.layers:
            if "annotation" in layer.name:
                layer.visible = False

    def _cells(self) -> list[int]:
        """The largest cells of the part that is shown."""
        areas_px = np.bincount(self.truth[self.subject.view].ravel())
        return [int(one) + 1 for one in np.argsort(-areas_px[1:])[:N_OBJECTS]]

    def _filled_cells(self) -> list[int]:
        """Some of them that are close to each other, in the middle of the view."""
        rows, columns = self.subject.view
        middle = (rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2
        centres = ndimage.center_of_mass(np.ones(self.truth.shape), self.truth, self._cells())
        distances = [np.hypot(row - middle[0], column - middle[1]) for row, column in centres]
        return [self._cells()[index] for index in np.argsort(distances)[: self.subject.n_filled]]

    def _in_view(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Nobody paints outside the window."""
        inside = np.zeros_like(mask)
        inside[self.subject.view] = mask[self.subject.view]
        return inside

    def _look_at_a_part(self) -> None:
        layer, camera = self.viewer.layers[0], self.viewer.scene.camera
        (rows, columns), plane = self.subject.view, self.subject.plane
        settle()
        top, left = layer.data_to_world((plane, rows.start, columns.start))[-2:]
        bottom, right = layer.data_to_world((plane, rows.stop, columns.stop))[-2:]
        camera.center = (0, (top + bottom) / 2, (left + right) / 2)
        camera.zoom = min(
            self.hand.canvas.height() / (bottom - top), self.hand.canvas.width() / (right - left)
        )

    def _keep(self, name: str) -> None:
        settle()
        pixels: Any = np.asarray(self.viewer.screenshot(canvas_only=False, flash=False))
        write_atomically(self.pictures / name, small_png(pixels))
        print(self.pictures / name)


def outlines(mask: NDArray[np.bool_], inside_px: float) -> list[list[tuple[float, float]]]:
    """Lines around a shape, so far inside it that a brush reaches its edge."""
    depth_px = ndimage.distance_transform_edt(mask)
    lines = find_contours(depth_px, inside_px + 0.5)
    return [[(float(row), float(column)) for row, column in line[::3]] for line in lines if len(line) > 12]


def small_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as the bytes of a PNG file, in steps of eight grey levels: noise takes up most of it."""
    buffer = io.BytesIO()
    coarse = pixels[..., :3] & 0b11111000 | 0b100
    Image.fromarray(coarse).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
