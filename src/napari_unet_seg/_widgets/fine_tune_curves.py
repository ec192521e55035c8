"""Loss and score while a network learns, in two small plots; pyqtgraph is loaded when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_unet_seg._beat import BEAT_S, Beat

MOST_POINTS = 400
"""An even number; so many points are halved: pairs become their mean."""
_HEIGHT_PX = 130
_LATEST_DRAWING_MS = round(2000 * BEAT_S)
"""When the last point is drawn, though none follows that would bring a new beat."""
_PADDING = 0.05
_SCORE_MARGIN = 0.04
_SMOOTHING = 0.1
"""Weight of the newest loss in the smooth line."""


@dataclass
class Series:
    """A curve of any length in few points."""

    most_points: int = MOST_POINTS
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    _each: int = 1
    _waiting: list[tuple[float, float]] = field(default_factory=list)

    def add(self, x: float, y: float) -> None:
        """One more; shown once there are enough of them for a point."""
        self._waiting.append((x, y))
        if len(self._waiting) == self._each:
            self.x.append(sum(one[0] for one in self._waiting) / self._each)
            self.y.append(sum(one[1] for one in self._waiting) / self._each)
            self._waiting.clear()
        if len(self.x) >= self.most_points:
            self.x, self.y = _halved(self.x), _halved(self.y)
            self._each *= 2

    def smooth(self) -> list[float]:
        """Each point mixed with those before it."""
        smoothed: list[float] = []
        for n, value in enumerate(self.y, 1):
            share = max(_SMOOTHING, 1 / n)
            smoothed.append(value if not smoothed else (1 - share) * smoothed[-1] + share * value)
        return smoothed


def _halved(values: list[float]) -> list[float]:
    return [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=False)]


@dataclass(frozen=True)
class PlotColours:
    """Blue and orange that the colour-blind can tell, on the window's ground."""

    loss: str
    score: str
    text: str

    @classmethod
    def on(cls, *, is_dark: bool) -> PlotColours:
        """For a dark or a light theme."""
        return cls("#56b4e9", "#e69f00", "#d0d0d0") if is_dark else cls("#0072b2", "#b34700", "#404040")


class Curves(QWidget):
    """Two plots beside each other, with what they show above them."""

    def __init__(self) -> None:
        super().__init__()
        self.loss_title, self.score_title = QLabel("loss"), QLabel("score")
        self.loss, self.scores = Series(), Series()
        self.before: float | None = None
        self.plots: tuple[Any, Any] | None = None
        self._colours = PlotColours.on(is_dark=True)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        for column, title in enumerate((self.loss_title, self.score_title)):
            self._grid.addWidget(title, 0, column)
            self._grid.setColumnStretch(column, 1)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_LATEST_DRAWING_MS)
        self._timer.timeout.connect(self.draw)
        self._beat = Beat()
        self.setVisible(False)

    def begin(self) -> None:
        """Show empty plots."""
        self.loss, self.scores, self.before = Series(), Series(), None
        self.loss_title.setText("loss")
        self.score_title.setText("score")
        if self.plots is None:
            self._make_plots()
        self.setVisible(True)
        self.draw()

    def add_loss(self, step: int, loss: float) -> None:
        """One more batch was learned."""
        self.loss.add(step, loss)
        self._draw_soon()

    def add_score(self, step: int, value: float, before: float) -> None:
        """One more score; `before` is that of the starting model on the same."""
        self.scores.add(step, value)
        self.before = before
        self.score_title.setText(f"score  {value:.2f}")
        self._draw_soon()

    def show_theme(self, *, is_dark: bool) -> None:
        """Colours for a dark or a light window."""
        self._colours = PlotColours.on(is_dark=is_dark)
        if self.plots is not None:
            self._colour()
            self.draw()

    def draw(self) -> None:
        """Draw what there is now."""
        self._timer.stop()
        if self.plots is None:
            return
        left, right = self.plots
        smooth = self.loss.smooth()
        self._loss_points.setData(self.loss.x, self.loss.y)
        self._loss_line.setData(self.loss.x, smooth)
        self._score_line.setData(self.scores.x, self.scores.y)
        self._before_line.setVisible(self.before is not None)
        for plot, series in zip(self.plots, (self.loss, self.scores), strict=True):
            plot.setXRange(0, max(series.x, default=1) or 1, padding=_PADDING)
        if smooth:
            self.loss_title.setText(f"loss  {smooth[-1]:.3g}")
            left.setYRange(0, max(self.loss.y), padding=_PADDING)
        if self.before is not None:
            self._before_line.setValue(self.before)
            shown = [self.before, *self.scores.y]
            right.setYRange(min(shown) - _SCORE_MARGIN, max(shown) + _SCORE_MARGIN, padding=0)

    def _draw_soon(self) -> None:
        if self._beat.is_new():
            self.draw()
        elif not self._timer.isActive():
            self._timer.start()

    def _make_plots(self) -> None:
        import pyqtgraph

        self.plots = (_plot(pyqtgraph), _plot(pyqtgraph))
        left, right = self.plots
        left.setToolTip("How wrong the network is about what it learns from; it should fall.")
        right.setToolTip("How good it is on what it does not learn from; the dashed line is the old model.")
        self._loss_points = left.plot([], [], symbol="o", symbolSize=3, symbolPen=None)
        self._loss_line = left.plot([], [])
        self._before_line = pyqtgraph.InfiniteLine(
            angle=0, label="before", labelOpts={"position": 0.85, "anchors": [(0.5, 1), (0.5, 1)]}
        )
        right.addItem(self._before_line)
        self._score_line = right.plot([], [], symbol="o", symbolSize=5)
        self._grid.addWidget(left, 1, 0)
        self._grid.addWidget(right, 1, 1)
        self._colour()

    def _colour(self) -> None:
        import pyqtgraph

        if self.plots is None:
            return
        colours = self._colours
        faint = pyqtgraph.mkColor(colours.loss)
        faint.setAlpha(80)
        self._loss_points.setPen(None)
        self._loss_points.setSymbolBrush(faint)
        self._loss_line.setPen(pyqtgraph.mkPen(colours.loss, width=2))
        self._score_line.setPen(pyqtgraph.mkPen(colours.score, width=2))
        self._score_line.setSymbolBrush(colours.score)
        self._score_line.setSymbolPen(None)
        self._before_line.setPen(pyqtgraph.mkPen(colours.text, width=1, style=Qt.PenStyle.DashLine))
        self._before_line.label.setColor(colours.text)
        for plot in self.plots:
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(colours.text)
                plot.getAxis(side).setTextPen(colours.text)


def _plot(pyqtgraph: Any) -> Any:
    """An empty plot that cannot be dragged or zoomed: it follows its curves."""
    plot = pyqtgraph.PlotWidget(background=None)
    plot.setFixedHeight(_HEIGHT_PX)
    plot.setMinimumWidth(120)
    plot.setMouseEnabled(x=False, y=False)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.getAxis("left").setWidth(34)
    return plot
