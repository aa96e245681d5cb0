"""The page: whole in itself, right about how the run came out, accessible."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rl_jax.experiment import Band, Experiment
from rl_jax.launch.records import Records
from rl_jax.launch.report import Report, judge, verdict, write_report
from rl_jax.training.loop import Outcome

VOID = {"meta", "img", "source", "br", "wbr"}


class Page(HTMLParser):
  """Collects what the tests ask for and checks that tags nest."""

  def __init__(self, content: str) -> None:
    super().__init__()
    self.open: list[str] = []
    self.tags: list[tuple[str, dict[str, str | None]]] = []
    self.text = ""
    self.feed(content)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != "style":
      self.text += data

  def every(self, tag: str) -> list[dict[str, str | None]]:
    return [attributes for name, attributes in self.tags if name == tag]


def record(workdir: Path, rows, outcome: Outcome) -> None:
  records = Records(workdir)
  records.started(step=0, steps=20)
  for item in rows:
    records.measured(item)
  records.ended(outcome)


def page(workdir: Path, experiment: Experiment, outcome: Outcome) -> Page:
  path = write_report(workdir, experiment, outcome)
  assert path == workdir / "report.html"
  return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
  return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(workdir, experiment, finished, row, samples) -> Page:
  after = samples | {"samples_correct": np.ones((3, 2), bool)}
  rows = [
    row(
      0, "evaluation", samples, evaluation__reward=0.5, evaluation__spread=0.7
    ),
    row(1, reward=0.5, loss=1.0),
    row(20, reward=0.75, loss=0.5),
    row(
      20, "evaluation", after, evaluation__reward=0.95, evaluation__spread=0.7
    ),
  ]
  record(workdir, rows, finished)
  return page(workdir, experiment, finished)


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside(whole: Page) -> None:
  for _, attributes in whole.tags:
    for name, value in attributes.items():
      if name in {"src", "srcset", "href", "action", "data", "poster"}:
        assert value.startswith("data:image/png;base64,")
  assert not {"script", "link", "iframe", "object"} & {t for t, _ in whole.tags}


@pytest.mark.slow
def test_the_style_needs_nothing_from_outside(workdir, whole: Page) -> None:
  content = (workdir / "report.html").read_text()
  style = content[content.index("<style>") : content.index("</style>")]
  assert "url(" not in style
  assert "@import" not in style
  assert style.count("{") == style.count("}")


def test_every_picture_is_described_and_follows_the_theme(whole: Page) -> None:
  images, sources = whole.every("img"), whole.every("source")
  assert len(images) == len(sources) == 2 + 2 + 2  # samples, bands, families
  assert all(len(image["alt"]) > 20 for image in images)
  assert all("dark" in source["media"] for source in sources)
  for image, source in zip(images, sources, strict=True):
    assert image["src"] != source["srcset"]


def test_the_page_names_language_title_and_width(whole: Page) -> None:
  assert whole.every("html") == [{"lang": "en"}]
  assert {"content", "name"} == set(whole.every("meta")[1])
  assert [tag for tag, _ in whole.tags if tag in {"h1", "main"}] == [
    "h1",
    "main",
  ]
  assert all("scope" in attributes for attributes in whole.every("th"))


def test_pictures_are_files_too(workdir, whole: Page) -> None:
  files = {p.read_bytes() for p in (workdir / "figures").glob("*.png")}
  embedded = {
    base64.b64decode(image["src"].split(",")[1]) for image in whole.every("img")
  }
  assert files == embedded


def test_samples_before_and_after_say_how_many_are_right(whole: Page) -> None:
  assert "samples, step 0: 3 of 6 are what their row asks for" in whole.text
  assert "samples, step 20: 6 of 6 are what their row asks for" in whole.text


def test_the_configuration_is_folded_and_complete(
  whole: Page, experiment
) -> None:
  assert whole.every("details") == [{}]
  for part in ("algorithm.1.size", "start.by.name", "'base'", "0.75"):
    assert part in whole.text
  assert experiment.hash in whole.text


def test_a_run_as_expected(whole: Page) -> None:
  assert "Finished, as expected: 2 of 2 numbers in their bands." in whole.text
  assert {"class": "verdict good"} in whole.every("p")
  assert whole.text.count("outside") == 0


def test_a_run_outside_of_its_bands(
  tmp_path, experiment, finished, row
) -> None:
  """The last value counts, not the best, and a missing one is outside."""
  rows = [
    row(0, "evaluation", evaluation__reward=0.95),
    row(20, "evaluation", evaluation__reward=0.5),
  ]
  record(tmp_path, rows, finished)
  found = page(tmp_path, experiment, finished)
  assert (
    "Finished, not as expected: evaluation/reward is 0.5, expected at least"
    " 0.9; evaluation/spread is not measured, expected 0.5 to 0.75."
  ) in found.text
  assert {"class": "verdict bad"} in found.every("p")


def test_the_edge_of_a_band_is_inside(row) -> None:
  rows = [row(1, "evaluation", a=0.5, b=float("nan"))]
  bands = [
    Band(metric="a", low=0.5),
    Band(metric="a", high=0.5),
    Band(metric="a", low=0.51),
    Band(metric="b"),
  ]
  assert [j.inside for j in judge(rows, bands)] == [True, True, False, False]


def test_a_run_without_expectations_is_judged_by_nobody() -> None:
  said = verdict([], 5, Outcome("finished", 5, None, 1.0, {}))
  assert said == "Finished, no numbers were expected."


def test_a_stopped_run_says_so(tmp_path, experiment, row) -> None:
  outcome = Outcome("stopped", 7, 15, 2.0, {})
  record(tmp_path, [row(0, "evaluation", evaluation__reward=0.95)], outcome)
  found = page(tmp_path, experiment, outcome)
  assert "Stopped by SIGTERM at step 7 of 20; so far not as" in found.text
  assert "7 of 20" in found.text


def test_supervised_runs_have_curves_and_no_samples(
  tmp_path, experiment, finished, row
) -> None:
  record(tmp_path, [row(s, loss=1 / s) for s in range(1, 21)], finished)
  found = page(tmp_path, experiment, finished)
  assert "Samples" not in found.text
  assert len(found.every("img")) == 1
  assert "loss 1 to 0.05" in found.text


def test_a_run_that_measured_nothing(tmp_path, experiment, finished) -> None:
  found = page(tmp_path, experiment, finished)
  assert "Nothing was recorded." in found.text


def test_one_picture_and_others_of_another_shape(
  tmp_path, experiment, finished, row, samples
) -> None:
  pictures = {"samples": samples["samples"], "curve": np.zeros((3, 4))}
  record(tmp_path, [row(0, "evaluation", pictures, x=1.0)], finished)
  found = page(tmp_path, experiment, finished)
  assert "curve has shape 3x4: not drawn here." in found.text
  assert "samples, step 0" in found.text
  assert "Frame:" not in found.text


def test_names_cannot_break_the_page(tmp_path, finished, row) -> None:
  hostile = '<b a="1">&'
  experiment = Experiment(
    name=hostile,
    model=hostile,
    data=1,
    algorithm=2,
    steps=2,
    expected=(Band(metric=hostile),),
  )
  rows = [row(1, "evaluation")._replace(metrics={hostile: 1.0})]
  record(tmp_path, rows, finished)
  found = page(tmp_path, experiment, finished)
  assert found.every("b") == []
  assert hostile in found.text


def test_origin_comes_from_what_the_launcher_stored(
  tmp_path, experiment, finished
) -> None:
  stored = {
    "command": ["rl-jax", "train", "x.py"],
    "python": "3.12.1",
    "versions": {"jax": "0.12"},
  }
  (tmp_path / "experiment.json").write_text(json.dumps(stored))
  found = page(tmp_path, experiment, finished)
  assert "rl-jax train x.py" in found.text
  assert "python 3.12.1, jax 0.12" in found.text


def test_time_is_that_of_all_processes(
  tmp_path, experiment, finished, row
) -> None:
  record(tmp_path, [row(200, loss=1.0)], finished)
  found = page(tmp_path, experiment, finished)
  assert "1 min 40 s, of which this process 8.0 s" in found.text


def test_a_second_report_leaves_no_old_pictures(
  tmp_path, experiment, finished, row
) -> None:
  old = tmp_path / "figures" / "old.png"
  old.parent.mkdir()
  old.write_bytes(b"")
  record(tmp_path, [row(1, loss=1.0)], finished)
  page(tmp_path, experiment, finished)
  assert [p.name for p in old.parent.iterdir()] == ["loss.png"]


def test_the_observer_writes_when_the_run_ends(
  tmp_path, experiment, finished, row
) -> None:
  report = Report(tmp_path, experiment)
  report.started(step=0, steps=20)
  report.measured(row(1))
  report.saved(1)
  assert report.path is None
  report.ended(finished)
  assert report.path == tmp_path / "report.html"
  assert report.path.exists()
  assert report.verdict.startswith("Finished, not as expected")


def wrote(row, step: int, rewards: list[float | None], text: str = "{} is"):
  """An evaluation of a language policy."""
  texts = tuple(
    {
      "prompt": f"prompt {i}",
      "completion": text.format(i),
      "reference": f"{i}",
      "reward": own,
    }
    for i, own in enumerate(rewards)
  )
  found = row(
    step,
    "evaluation",
    evaluation__reward=0.5,
    evaluation__reward_interval=0.125,
    evaluation__length=3.0,
    evaluation__no_verdict=0.0,
  )
  return found._replace(texts=texts)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, experiment, finished, row) -> tuple[Path, Page]:
  workdir = tmp_path_factory.mktemp("spoken")
  rows = [
    wrote(row, 0, [0.0, 0.0, 1.0, 0.5, None]),
    row(1, reward=0.5, length=4.0, dead_groups=0.25, no_verdict=0.0, loss=1.0),
    wrote(row, 20, [1.0, 0.0, 0.0, 0.5, 1.0], text="{}\n  so"),
  ]
  record(workdir, rows, finished)
  return workdir, page(workdir, experiment, finished)


@pytest.mark.slow
def test_answers_before_and_after_go_both_ways(spoken) -> None:
  _, found = spoken
  assert "Before and after" in found.text
  assert (
    "Of 5 answers to the same prompts 2 are judged better at step 20 than at"
    " step 0, 1 worse and 2 alike."
  ) in found.text
  heads = [attributes["class"] for attributes in found.every("h3")]
  assert heads == ["better", "better", "worse", "alike", "alike"]
  for part in ("before, reward 0", "before, no verdict", "after, reward 1"):
    assert part in found.text
  assert "2↵\n··so" in found.text
  assert "before, step 0: mean 0.375; after, step 20: mean 0.5" in found.text


@pytest.mark.slow
def test_monitors_stand_together_and_silence_is_a_sentence(spoken) -> None:
  workdir, found = spoken
  assert "Monitors" in found.text
  assert "0 all the time: no_verdict." in found.text
  assert "evaluation/reward 0.5 to 0.5 ± 0.125" in found.text
  # evaluation/reward is expected in a band, and has that chart besides.
  assert sorted(p.name for p in (workdir / "figures").iterdir()) == [
    "evaluation_reward.png",
    "length_of_responses_tokens.png",
    "loss.png",
    "reward_trained_on_and_evaluated.png",
    "rewards_before_and_after.png",
    "share_of_groups_without_a_signal.png",
  ]
  assert all(len(image["alt"]) > 20 for image in found.every("img"))


@pytest.mark.slow
def test_one_evaluation_is_shown_without_a_before(
  tmp_path, experiment, finished, row
) -> None:
  record(tmp_path, [wrote(row, 0, [0.0] * 12)], finished)
  found = page(tmp_path, experiment, finished)
  assert "Answers at step 0" in found.text
  assert len(found.every("h3")) == 8
  assert "judged" not in found.text


@pytest.mark.slow
def test_no_completion_can_break_the_page(
  tmp_path, experiment, finished, row
) -> None:
  hostile = '</div><script>x</script>\x00\x1b[1m\u202e\ud800"&amp;' + "w" * 9999
  first = wrote(row, 0, [0.0, 1.0])
  texts = (
    first.texts[0] | {"prompt": hostile, "completion": hostile},
    first.texts[1]
    | {
      "prompt": [{"role": hostile, "content": hostile}, {"odd": [hostile]}],
      "completion": "",
      "reward": "nan",
      "reference": [hostile],
    },
  )
  rows = [
    first._replace(texts=texts),
    wrote(row, 20, [0.0])._replace(texts=texts),
  ]
  record(tmp_path, rows, finished)
  found = page(tmp_path, experiment, finished)
  assert found.every("script") == []
  assert '</div><script>x</script>\\x00\\x1b[1m\\u202e\\ud800"&amp;ww' in (
    found.text
  )
  assert "more characters in texts/20.jsonl" in found.text
  assert "(nothing)" in found.text
