"""The published schema of IFEval, read into checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rl_jax.rewards.verifiers import instructions as checks

if TYPE_CHECKING:
  from collections.abc import Mapping, Sequence

__all__ = ["ifeval"]


def ifeval(
  names: Sequence[str], parameters: Sequence[Mapping[str, Any]]
) -> tuple[checks.Check, ...]:
  """Checks out of `instruction_id_list` and `kwargs` of a row.

  Args:
    names: identifiers like "punctuation:no_comma".
    parameters: one mapping per name; None in it means absent.

  Returns:
    The checks, in the same order.

  Raises:
    ValueError: if the numbers differ, a name is unknown or one that is not
      supported (languages, repeated prompts, the first word of a paragraph),
      or a parameter is missing.

  >>> ifeval(["punctuation:no_comma"], [{}])
  (NoCommas(),)
  """
  if len(names) != len(parameters):
    raise ValueError(f"{len(names)} names but {len(parameters)} parameters")
  found = []
  for name, given in zip(names, parameters, strict=True):
    try:
      found.append(_check(name, given))
    except KeyError as error:
      raise ValueError(f"{name!r} lacks the parameter {error}") from error
  return tuple(found)


def _bounds(given: Mapping[str, Any], relation: str, number: str) -> Any:
  """IFEval's two relations as bounds of a count."""
  count = int(given[number])
  match given[relation]:
    case "at least":
      return {"at_least": count}
    case "less than":
      return {"at_most": count - 1}
    case other:
      raise ValueError(f"unknown relation {other!r}")


def _check(name: str, given: Mapping[str, Any]) -> checks.Check:
  match name:
    case "keywords:existence":
      return checks.Keywords(phrases=tuple(given["keywords"]))
    case "keywords:forbidden_words":
      return checks.Forbidden(phrases=tuple(given["forbidden_words"]))
    case "keywords:frequency":
      bounds = _bounds(given, "relation", "frequency")
      return checks.Mentions(phrase=given["keyword"], **bounds)
    case "keywords:letter_frequency":
      bounds = _bounds(given, "let_relation", "let_frequency")
      return checks.Letters(letter=given["letter"], **bounds)
    case "length_constraints:number_words":
      return checks.Words(**_bounds(given, "relation", "num_words"))
    case "length_constraints:number_sentences":
      return checks.Sentences(**_bounds(given, "relation", "num_sentences"))
    case "length_constraints:number_paragraphs":
      count = int(given["num_paragraphs"])
      return checks.Paragraphs(count=count, separator="***")
    case "detectable_content:number_placeholders":
      return checks.Placeholders(at_least=int(given["num_placeholders"]))
    case "detectable_content:postscript":
      return checks.Postscript(mark=given["postscript_marker"])
    case "detectable_format:number_bullet_lists":
      count = int(given["num_bullets"])
      return checks.Bullets(at_least=count, at_most=count)
    case "detectable_format:number_highlighted_sections":
      return checks.Highlights(at_least=int(given["num_highlights"]))
    case "detectable_format:multiple_sections":
      count = int(given["num_sections"])
      return checks.Sections(word=given["section_spliter"], at_least=count)
    case "detectable_format:json_format":
      return checks.IsJson()
    case "detectable_format:title":
      return checks.Title()
    case "detectable_format:constrained_response":
      answers = ("yes", "no", "maybe")
      return checks.OneOf(options=tuple(f"My answer is {a}." for a in answers))
    case "combination:two_responses":
      return checks.TwoAnswers()
    case "startend:end_checker":
      return checks.EndsWith(phrase=given["end_phrase"])
    case "startend:quotation":
      return checks.Quoted()
    case "change_case:english_capital":
      return checks.Uppercase()
    case "change_case:english_lowercase":
      return checks.Lowercase()
    case "change_case:capital_word_frequency":
      bounds = _bounds(given, "capital_relation", "capital_frequency")
      return checks.CapitalWords(**bounds)
    case "punctuation:no_comma":
      return checks.NoCommas()
  raise ValueError(f"instruction {name!r} is unknown or not supported")
