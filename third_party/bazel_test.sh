#!/usr/bin/env bash
# Runs the tests of the pure packages with Debian's Bazel, offline.
#
#   apt-get install bazel-bootstrap     (4.2.3; any newer Bazel needs no script)
#   uv sync                             (the .venv whose Python runs the tests)
#   third_party/bazel_test.sh [LABEL...]     default: //tests:pure
#
# The BUILD files are the repository's own. Bazel 4 reads no MODULE.bazel and
# would download the rules, so each repository it asks for is replaced by a few
# lines that hand out its built-in rules; `@pypi//x` is an empty library, and
# what it stands for comes from .venv. Everything is written to a temporary
# folder, which is removed.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
command -v bazel >/dev/null || {
  echo "no bazel: apt-get install bazel-bootstrap" >&2
  exit 2
}
[[ -x $python ]] || {
  echo "no $python: run uv sync first" >&2
  exit 2
}

work=$(mktemp -d)
started=
finish() {
  # The server would outlive the files it serves.
  [[ -z $started ]] || bazel --output_user_root="$work/out" shutdown || true
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap finish EXIT

# A copy, because Bazel 4 wants a WORKSPACE and leaves links in the folder.
mkdir "$work/source"
(
  cd "$root"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      if [[ -f $file ]]; then printf '%s\0' "$file"; fi
    done |
    xargs -0 cp --parents -t "$work/source"
)
cd "$work/source"
touch WORKSPACE

# stand_in REPOSITORY PACKAGE RULE...: PACKAGE/defs.bzl with built-in rules.
stand_in() {
  local folder=$work/$1
  mkdir -p "$folder/$2"
  touch "$folder/WORKSPACE" "$folder/BUILD" "$folder/$2/BUILD"
  printf '%s\n' "${@:3}" | sed 's/.*/& = native.&/' >"$folder/$2/defs.bzl"
}
stand_in rules_python python py_library py_test py_binary
stand_in rules_java java java_library java_binary java_test java_import \
  java_runtime java_toolchain java_plugin java_package_configuration
stand_in rules_cc cc cc_library cc_binary cc_test cc_import cc_toolchain \
  cc_toolchain_suite
# Bazel's own tools ask for these two; no C++ is built here.
cat >>"$work/rules_cc/cc/defs.bzl" <<'END'
def _nothing(_ctx):
    return []

cc_flags_supplier = rule(implementation = _nothing)
compiler_flag = rule(implementation = _nothing)
END

mkdir "$work/coverage" "$work/pypi"
touch "$work/coverage/WORKSPACE" "$work/pypi/WORKSPACE" "$work/pypi/BUILD"
for name in coverage_report_generator lcov_merger; do
  echo "filegroup(name = '$name', visibility = ['//visibility:public'])"
done >"$work/coverage/BUILD"
grep -rhoE --include=BUILD '@pypi//[a-z0-9_]+' . | sort -u |
  while read -r label; do
    name=${label#@pypi//}
    mkdir "$work/pypi/$name"
    echo "py_library(name = '$name', visibility = ['//visibility:public'])" \
      >"$work/pypi/$name/BUILD"
  done

started=yes
bazel --output_user_root="$work/out" --nohome_rc test \
  --override_repository=rules_python="$work/rules_python" \
  --override_repository=rules_java="$work/rules_java" \
  --override_repository=rules_cc="$work/rules_cc" \
  --override_repository=remote_coverage_tools="$work/coverage" \
  --override_repository=pypi="$work/pypi" \
  --noincompatible_use_python_toolchains --python_path="$python" \
  --jobs=2 --test_output=errors --noshow_progress --color=no \
  --nosandbox_debug \
  "${@:-//tests:pure}"
