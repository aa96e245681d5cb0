#!/usr/bin/env bash
# Writes requirements_lock.txt (hashes, no addresses; what Bazel's pip.parse
# reads) and the same pins without hashes into pyproject.toml, which uv obeys.
#
#   third_party/lock.sh             keep what is pinned, add what is new
#   third_party/lock.sh --upgrade   newest of everything
#
# The extras cuda12 and tpu stay out: `pip install -r` on a laptop would fetch
# gigabytes of CUDA. jax, pinned here, itself asks for one version of its
# plug-ins and of libtpu.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=(python3 -m uv)
if [[ -x .uvtool/bin/uv ]]; then uv=(.uvtool/bin/uv); fi

lock=third_party/requirements_lock.txt
# The constraints of pyproject.toml are this file's last state: left out, so
# that they do not hold back what is to move.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 third_party/constraints.py --without >"$work/pyproject.toml"
"${uv[@]}" pip compile --quiet "$work/pyproject.toml" --universal \
  --generate-hashes --no-header --no-annotate --python-version 3.12 \
  --extra digits --group "$work/pyproject.toml:dev" \
  --group "$work/pyproject.toml:tasks" "$@" -o "$lock"
python3 third_party/constraints.py --write
