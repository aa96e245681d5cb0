import dataclasses
import json

import pytest

from models.decoder.conftest import PLAIN

tokenizers = pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)
pytest.importorskip("jinja2", reason="needs the extra `language` (jinja2)")

from rl_jax.models import tokenizer as texts  # noqa: E402

TEMPLATE = (
  "{% for m in messages %}\n"
  "  {% if m['role'] not in ('user', 'assistant') %}"
  "{{ raise_exception('role ' + m['role']) }}{% endif %}\n"
  "{{ bos_token + m['role'] + ':' + m['content'] + eos_token }}\n"
  "{% endfor %}\n"
  "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


@pytest.fixture
def tokenizer():
  """Letters a and b, their pair, and two special tokens."""
  rules = tokenizers.Tokenizer(
    tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2, "Ġ": 3}, [("a", "b")])
  )
  rules.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  rules.decoder = tokenizers.decoders.ByteLevel()
  rules.add_special_tokens(["<s>", "</s>"])
  return texts.Tokenizer(
    backend=rules, bos="<s>", eos="</s>", template=TEMPLATE
  )


def test_ids_and_text(tokenizer):
  assert tokenizer.encode("<s>ab a</s>") == [4, 2, 3, 0, 5]
  assert tokenizer.decode([4, 2, 3, 0, 5]) == "ab a"
  assert tokenizer.decode([4, 2, 5], special=True) == "<s>ab</s>"
  assert tokenizer.id("</s>") == 5
  assert tokenizer.size == 6


def test_conversation_is_what_the_template_says(tokenizer):
  messages = [{"role": "user", "content": "ab"}]
  # As transformers trims blocks: no newline after one, no blanks before.
  whole = "<s>user:ab</s>\n"
  assert tokenizer.chat(messages, generation_prompt=False) == whole
  found = tokenizer.chat(messages, generation_prompt=True)
  assert found == whole + "assistant:"


def test_what_a_template_refuses_is_an_error(tokenizer):
  with pytest.raises(ValueError, match="refuses: role tool"):
    tokenizer.chat([{"role": "tool", "content": ""}], generation_prompt=False)


@pytest.mark.parametrize(
  ("template", "words"),
  [
    (None, "no chat template"),
    ("{{ messages[0].content.x.y }}", "failed"),
    ("{% if %}", "failed"),
    # Templates come with weights and may be hostile.
    ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "failed"),
    ("{{ messages.append(1) }}", "failed"),
  ],
)
def test_templates_that_are_missing_broken_or_hostile(
  tokenizer, template, words
):
  other = dataclasses.replace(tokenizer, template=template)
  with pytest.raises(ValueError, match=words):
    other.chat([{"role": "user", "content": "a"}], generation_prompt=False)


def test_what_is_written_is_read_as_the_same(tokenizer, tmp_path):
  tokenizer.save(tmp_path)
  again = texts.from_folder(tmp_path)
  assert (again.bos, again.eos, again.pad) == ("<s>", "</s>", None)
  assert again.template == TEMPLATE
  assert again.encode("<s>ab a</s>") == [4, 2, 3, 0, 5]


def test_other_ways_of_writing_settings(tokenizer, tmp_path):
  tokenizer.save(tmp_path)
  path = tmp_path / "tokenizer_config.json"
  settings = json.loads(path.read_text())
  settings["bos_token"] = {"content": "<s>", "special": True}
  settings["chat_template"] = [
    {"name": "tools", "template": "no"},
    {"name": "default", "template": "yes"},
  ]
  path.write_text(json.dumps(settings))
  found = texts.from_folder(tmp_path)
  assert (found.bos, found.template) == ("<s>", "yes")
  (tmp_path / "chat_template.jinja").write_text("first")
  assert texts.from_folder(tmp_path).template == "first"


def test_missing_files_and_tokens_are_named(tokenizer, tmp_path):
  with pytest.raises(ValueError, match=r"no tokenizer\.json in"):
    texts.from_folder(tmp_path)
  with pytest.raises(ValueError, match="'<x>' is not in the vocabulary"):
    dataclasses.replace(tokenizer, pad="<x>")
  with pytest.raises(ValueError, match="no token 'abc'"):
    tokenizer.id("abc")


def test_a_model_with_fewer_ids_is_refused(tokenizer):
  tokenizer.check(PLAIN)
  with pytest.raises(ValueError, match="ids up to 5, the model only 5"):
    tokenizer.check(dataclasses.replace(PLAIN, vocabulary=5))
