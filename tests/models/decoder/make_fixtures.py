"""Tiny random checkpoints and their logits, by transformers.

Runs where torch and transformers are (see tests/models/fixtures/README.md):

  python make_fixtures.py write tests/models/fixtures
  python make_fixtures.py check FOLDER tests/models/fixtures/llama
  python make_fixtures.py smollm2 FILE.gguf tests/models/fixtures/smollm2.json

`write` makes one Hugging Face folder per family, with `expected.json` beside
its weights: token ids and float32 logits. `check` loads a folder that we have
exported and compares its logits with those of a fixture. `smollm2` records
token ids, conversations and a few logits of SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import shutil
import sys

import tokenizers

# Not of this project's environment, and so no dependencies of it.
torch = importlib.import_module("torch")
transformers = importlib.import_module("transformers")

COMMON = {
  "vocab_size": 64,
  "hidden_size": 32,
  "intermediate_size": 48,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 64,
  "bos_token_id": None,
  "eos_token_id": None,
  "pad_token_id": None,
}
LLAMA3 = {
  "rope_theta": 500.0,
  "rope_type": "llama3",
  "factor": 4.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 32,
}
YARN = {
  "rope_theta": 100.0,
  "rope_type": "yarn",
  "factor": 4.0,
  "beta_fast": 4.0,
  "beta_slow": 0.5,
  "original_max_position_embeddings": 16,
}
# Name, configuration class, what it has that the others have not.
FAMILIES = {
  "llama": ("LlamaConfig", {"rope_parameters": LLAMA3}),
  "llama_tied": ("LlamaConfig", {"tie_word_embeddings": True}),
  "qwen2": (
    "Qwen2Config",
    {
      "use_sliding_window": True,
      "sliding_window": 5,
      "max_window_layers": 2,
    },
  ),
  "qwen3": ("Qwen3Config", {"head_dim": 16, "rope_parameters": YARN}),
  "gemma2": (
    "Gemma2Config",
    {
      "head_dim": 16,
      "query_pre_attn_scalar": 24,
      "sliding_window": 4,
      "attn_logit_softcapping": 5.0,
      "final_logit_softcapping": 3.0,
    },
  ),
  "gemma3": (
    "Gemma3TextConfig",
    {
      "head_dim": 16,
      "query_pre_attn_scalar": 24,
      "sliding_window": 4,
      "sliding_window_pattern": 3,
      "rope_parameters": {
        "sliding_attention": {"rope_theta": 100.0, "rope_type": "default"},
        "full_attention": {
          "rope_theta": 1000.0,
          "rope_type": "linear",
          "factor": 8.0,
        },
      },
    },
  ),
}


TEXTS = (
  "",
  "What is 2+3?",
  "In 1234567890 years, 3.14159 x 2 = 6.28318",
  "  leading,   inner\n\n\ttabs and trailing  ",
  "it's we'll they'd DON'T I'm",
  "naïve café, Zürich; Ελληνικά; русский; 日本語; العربية",
  "emoji 👩‍🚀🚀 and \u200b zero width",
  "def f(x):\n    return x**2  # square\n",
  "<|im_start|>user\nHi<|im_end|>\n<|endoftext|><|im_star",
  "\\frac{1}{2} \\int_0^\\infty e^{-x^2} dx",
)
CONVERSATIONS = (
  [{"role": "user", "content": "What is 2+3?"}],
  [
    {"role": "system", "content": "Answer with a number."},
    {"role": "user", "content": "  7 + 5\n"},
    {"role": "assistant", "content": "12"},
    {"role": "user", "content": "and <|im_end|> 9+9 ünïcode"},
  ],
)


def loaded(folder):
  return transformers.AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32, attn_implementation="eager"
  ).eval()


def logits(model, token):
  with torch.no_grad():
    return model(torch.tensor(token)).logits.float()


def write(root: pathlib.Path) -> None:
  for seed, (name, (kind, fields)) in enumerate(FAMILIES.items()):
    torch.manual_seed(seed)
    config = getattr(transformers, kind)(**COMMON | fields)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
      for path, weight in model.named_parameters():
        noise = torch.randn_like(weight)
        if "norm" in path:
          weight.add_(0.3 * noise)
        elif "embed" in path:
          weight.copy_(0.5 * noise)
        else:
          weight.copy_(noise * (0.3 if weight.ndim == 1 else 0.25))
    # Numbers that half precision holds, so that files are small and exact.
    model = model.to(torch.bfloat16)
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    # One of them in several files with an index.
    size = "30KB" if name == "llama" else "1GB"
    model.save_pretrained(folder, max_shard_size=size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    token = torch.randint(64, (2, 12)).tolist()
    # From the file: above, the frequencies of positions were rounded too.
    rows = logits(loaded(folder), token)
    expected = {
      "transformers": transformers.__version__,
      "torch": torch.__version__,
      "token": token,
      "logits": [[[float(f"{x:.8g}") for x in c] for c in r] for r in rows],
    }
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    print(name, float(rows.std()))


def check(folder: pathlib.Path, fixture: pathlib.Path) -> None:
  expected = json.loads((fixture / "expected.json").read_text())
  found = logits(loaded(folder), expected["token"])
  error = (found - torch.tensor(expected["logits"])).abs().max()
  print(folder, "greatest difference of a logit:", float(error))
  if error > 1e-4:
    raise SystemExit(1)


def smollm2(path: pathlib.Path, to: pathlib.Path) -> None:
  where = {"gguf_file": path.name}
  tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **where)
  # What the published tokenizer does before the rest, and llama.cpp too, and
  # transformers' reader of GGUF forgets: each digit stands alone.
  cut = tokenizers.pre_tokenizers
  tokenizer.backend_tokenizer.pre_tokenizer = cut.Sequence(
    [cut.Digits(individual_digits=True), cut.ByteLevel(add_prefix_space=False)]
  )
  model = transformers.AutoModelForCausalLM.from_pretrained(
    path.parent, dtype=torch.float32, attn_implementation="eager", **where
  ).eval()
  chats = []
  for messages in CONVERSATIONS:
    for prompt in (False, True):
      text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt
      )
      chats.append([messages, prompt, text, ids(tokenizer, text)])
  token = chats[-1][-1]
  rows = logits(model, [token])[0]
  columns = [0, len(token) // 2, len(token) - 1]
  vocabulary = list(range(0, rows.shape[1], 1117))
  best = rows[-1].topk(20)
  expected = {
    "transformers": transformers.__version__,
    "torch": torch.__version__,
    "file": path.name,
    "texts": [[text, ids(tokenizer, text)] for text in TEXTS],
    "chats": chats,
    "columns": columns,
    "vocabulary": vocabulary,
    "logits": rows[columns][:, vocabulary].tolist(),
    "best": best.indices.tolist(),
    "best_logits": best.values.tolist(),
  }
  to.write_text(json.dumps(expected) + "\n")


def ids(tokenizer, text):
  return tokenizer(text, add_special_tokens=False).input_ids


if __name__ == "__main__":
  match sys.argv[1:]:
    case ["write", root]:
      write(pathlib.Path(root))
    case ["check", folder, fixture]:
      check(pathlib.Path(folder), pathlib.Path(fixture))
    case ["smollm2", path, to]:
      smollm2(pathlib.Path(path), pathlib.Path(to))
    case _:
      raise SystemExit(__doc__)
