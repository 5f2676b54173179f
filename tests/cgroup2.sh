#!/bin/sh
# The runtime's tests on a machine with cgroup v2 alone. RUNNER is a command that runs its arguments there as root, and shows
# this checkout's dist/cgroup2 as /share. No network is needed there: everything goes along as wheels.
# SET_CLOCK=1 on a machine that is thrown away: its clock is set, too (tests/runtime/test_clock.py).
# PYTEST_ARGS takes the place of what is run otherwise; -m 'not more_than_uml' leaves out what User Mode Linux cannot do.
set -eu
: "${RUNNER:?a command that runs its arguments on a cgroup v2 machine}" "${BIN:=.venv/bin}"
rm -rf dist/cgroup2
mkdir -p dist/cgroup2/wheels
"$BIN/pip" wheel --quiet --wheel-dir dist/cgroup2/wheels . pytest pytest-timeout hypothesis
cp -r tests pyproject.toml dist/cgroup2/
cat > dist/cgroup2/run.sh <<'END'
set -eu
export TMPDIR=/var/tmp SET_CLOCK=${2:-0}
python3 -m venv /var/tmp/venv
/var/tmp/venv/bin/pip install --quiet --no-index --find-links /share/wheels jupyter-pycontainers pytest pytest-timeout hypothesis
cp -r /share/tests /share/pyproject.toml /var/tmp/
cd /var/tmp
eval "set -- ${1:-tests/runtime tests/linux/cgroups}"
exec /var/tmp/venv/bin/python -m pytest -p no:cacheprovider --timeout 600 -q "$@"
END
$RUNNER sh /share/run.sh "${PYTEST_ARGS:-}" "${SET_CLOCK:-0}"
