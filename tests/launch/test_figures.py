"""Charts and grids: every metric once, every sample in its place."""

from __future__ import annotations

import io

import hypothesis
import hypothesis.strategies as st
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from rl_jax.launch.figures import DARK, LIGHT, Panel, curve, grid, panels
from rl_jax.launch.records import Picture
from rl_jax.training.loop import Row

names = st.sampled_from(
  [
    "reward",
    "reward_std",
    "rewards_not_finite",
    "loss",
    "loss/policy",
    "loss/kl_base",
    "kl",
    "ratio",
    "clipped",
    "absolute_advantage",
    "gradient_norm",
    "matching_error",
    "evaluation/reward",
  ]
)


def pixels(png: bytes) -> np.ndarray:
  image = matplotlib.image.imread(io.BytesIO(png), format="png")
  return np.rint(image[..., :3] * 255).astype(int)


def colour(text: str) -> np.ndarray:
  return np.rint(np.array(to_rgb(text)) * 255).astype(int)


def share(image: np.ndarray, text: str) -> float:
  return float(np.mean(np.all(image == colour(text), axis=-1)))


def chart(*values: float, band: tuple[float, float] | None = None) -> Panel:
  value = np.array(values)
  return Panel("a", {"a": (np.arange(value.size), value)}, band)


@hypothesis.given(
  st.lists(st.tuples(st.booleans(), st.sets(names)), max_size=5),
  st.sets(names),
)
def test_every_metric_is_in_exactly_one_chart(found, expected) -> None:
  rows = [
    Row(i, "evaluation" if e else "train", dict.fromkeys(m, 0.5), 0.0, {})
    for i, (e, m) in enumerate(found)
  ]
  charts = panels(rows, dict.fromkeys(expected, (0.0, 1.0)))
  shown = [name for panel in charts for name in panel.series]
  assert sorted(shown) == sorted({n for row in rows for n in row.metrics})
  for panel in charts:
    if set(panel.series) & expected:
      assert len(panel.series) == 1
      assert panel.band == (0.0, 1.0)


def test_charts_that_people_want_come_first(row) -> None:
  rows = [
    row(0, "evaluation", evaluation__reward=0.1, evaluation__held_out=0.2),
    row(
      1, rate=1.0, gradient_norm=1.0, loss__kl_slow=1.0, loss=1.0, reward=1.0
    ),
  ]
  assert [panel.title for panel in panels(rows, {})] == [
    "evaluation/reward",
    "evaluation/held_out",
    "Reward",
    "KL divergence",
    "Loss",
    "Gradient norm",
    "rate",
  ]


def test_series_hold_the_rows_that_have_them(row) -> None:
  rows = [
    row(0, "evaluation", x=0.5),
    row(1, y=1.0),
    row(2, "evaluation", x=0.75),
  ]
  step, value = panels(rows, {})[0].series["x"]
  assert step.tolist() == [0, 2]
  assert value.tolist() == [0.5, 0.75]


@pytest.mark.slow
@pytest.mark.parametrize(
  "panel",
  [
    chart(0.5),
    chart(0.0, 0.0),
    chart(1.0, np.nan, np.inf),
    chart(np.nan),
    chart(1e-9, 1e9),
    chart(*np.sin(np.arange(500.0))),
    chart(0.2, 0.3, band=(-np.inf, 0.25)),
    chart(0.2, 0.3, band=(-np.inf, np.inf)),
    Panel("many", {f"s{i}": chart(i, i).series["a"] for i in range(8)}, None),
  ],
  ids=[
    "one",
    "zeros",
    "infinite",
    "nan",
    "wide",
    "long",
    "high",
    "any",
    "many",
  ],
)
def test_any_series_can_be_drawn(panel: Panel) -> None:
  image = pixels(curve(panel, LIGHT, (0, 2)))
  assert image.shape == (432, 736, 3)
  assert 0 < share(image, LIGHT.paper) < 1


def test_a_chart_has_the_colours_of_its_theme() -> None:
  for theme, other in ((LIGHT, DARK), (DARK, LIGHT)):
    image = pixels(curve(chart(*range(50)), theme, (0, 49)))
    assert share(image, theme.paper) > 0.5
    assert share(image, theme.lines[0]) > 0.001
    assert share(image, other.paper) == 0


def test_the_band_is_shaded_where_it_is() -> None:
  """Values 0 and 1, band at least 0.5: the upper half of the plot is tinted."""
  image = pixels(curve(chart(0.0, 1.0, band=(0.5, np.inf)), LIGHT, (0, 1)))
  plot = image[62:367, 92:718]
  tinted = ~np.all(plot == colour(LIGHT.paper), axis=-1)
  upper, lower = np.mean(tinted[:150]), np.mean(tinted[160:])
  assert upper > 0.95
  assert lower < 0.15


def test_a_constant_stays_itself_under_the_running_mean() -> None:
  """A made-up end would widen the line: all its colour is in a few rows."""
  image = pixels(curve(chart(*[2.0] * 400), LIGHT, (0, 400)))
  rows = np.nonzero(
    np.any(np.all(image == colour(LIGHT.lines[0]), axis=-1), axis=1)
  )[0]
  assert rows.size
  assert np.ptp(rows) <= 4


def test_a_grid_frames_each_sample_by_whether_it_is_right(samples) -> None:
  """Each frame of 4 px around 56 px: 64^2 - 56^2 = 960 px of its colour."""
  picture = Picture(0, samples["samples"] * 0, samples["samples_correct"])
  image = pixels(grid(picture, LIGHT))
  assert image.shape == (3 * 68, 2 * 68 + 30, 3)
  left, right = image[:, 30:98], image[:, 98:]
  for half, text in ((left, LIGHT.right), (right, LIGHT.wrong)):
    assert np.sum(np.all(half == colour(text), axis=-1)) == 3 * 960
  assert share(left, LIGHT.wrong) == share(right, LIGHT.right) == 0


def test_a_grid_shows_each_sample_in_its_place(samples) -> None:
  """-1 is black, 1 is white, 14 pixels a side for each of the 4x4."""
  image = pixels(grid(Picture(0, samples["samples"], None), DARK))
  for r, c, i, j in np.ndindex(3, 2, 4, 4):
    y, x = r * 68 + 4 + 14 * i, 30 + c * 68 + 4 + 14 * j
    tile = image[y : y + 14, x : x + 14]
    grey = (samples["samples"][r, c, i, j] + 1) / 2 * 255
    assert np.abs(tile - grey).max() <= 1


def test_values_outside_the_range_are_clipped() -> None:
  image = np.full((1, 1, 56, 56), 3.0)
  drawn = pixels(grid(Picture(0, image, None), LIGHT))
  assert drawn.max() == 255
  tile = drawn[4:60, 34:90]
  assert (tile == 255).all()


def test_a_grid_of_another_shape_is_refused() -> None:
  with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
    grid(Picture(0, np.zeros((3, 4)), None), LIGHT)
