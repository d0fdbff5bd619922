# shellcheck shell=bash
# What the one-click scripts share. They work in any directory, where relative paths start.
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# `read_arguments SUITE OWN "$@"` prints with --help the variables of a script, of which OWN lists its own, and refuses
# any other argument.
read_arguments() {
  local suite=$1 own=$2 name=${0##*/} argument
  shift 2
  for argument; do
    if [ "$argument" = --help ] || [ "$argument" = -h ]; then
      cat <<END
usage: [VARIABLE=VALUE ...] bash $name [--help]

Runs xpubench suite $suite with the Python of the activated environment,
else .venv's, else the system's, and with these variables of the environment:
$own
  models       names or paths, not the suite's own; one a line if one has spaces
  stack        ipex, pytorch or openvino (default: auto, which is ipex where it
               drives an Intel GPU here, else pytorch)
  np           how many ranks share a model, in scripts whose name ends in _ds
  device       such as xpu (default: what is here)
  dtype        such as float16
  flags        all other flags of run_generation.py, quoted as in a shell
  timeout      seconds that a run may take without downloads (default: 3600)
  results      the directory of the records (default: results)
  rerun        "failed" or "all" makes runs again that have a record
END
      exit 0
    fi
  done
  if [ $# -gt 0 ]; then
    echo "error: $name takes no arguments such as $1, but variables of the environment; --help lists them" >&2
    exit 2
  fi
}

# `run_suite SUITE FLAGS` runs the suite with these flags and the variables above.
run_suite() {
  local flags_of_runs="$2 ${device:+--device $device} ${dtype:+--dtype $dtype} ${flags:-}"
  local python name names=${models:-} chosen=()
  for python in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}" \
    "$checkout/.venv/bin/python" python3; do
    if [ -n "$python" ] && command -v "$python" >/dev/null; then break; fi
  done
  # Of several words in one line each is a model, unless they are a path.
  if [[ $names != *$'\n'* && ! -e $names ]]; then names=${names//[[:blank:]]/$'\n'}; fi
  while read -r name; do
    if [ -n "$name" ]; then chosen+=("$name"); fi
  done <<<"$names"
  # The working directory stays, and the code is this checkout's even where another one is the working directory.
  export PYTHONPATH="$checkout${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
  exec "$python" -m xpubench suite "$1" --stack "${stack:-auto}" ${chosen[0]:+--models "${chosen[@]}"} \
    ${np:+--ranks "$np"} ${timeout:+--timeout "$timeout"} --results-dir "${results:-results}" \
    ${rerun:+--rerun "$rerun"} --flags="$flags_of_runs"
}
