#!/bin/sh
# Everything that needs a graphics card, in one command and under nine minutes:
#
#     benchmarks/gpu/run_all.sh                          results: benchmarks/results/gpu.json, a short table at the end
#     benchmarks/gpu/run_all.sh --device cpu --quick     the same on a processor, in little: to see that it works
#
# PYTHON names the interpreter to begin with. Where it lacks what is needed, an environment of its own is made, .venv-gpu
# in the repository; a torch that sees a card is used from where it is, and a CUDA build is installed where there is none.
set -u
cd "$(dirname "$0")/../.." || exit 1
PYTHON="${PYTHON:-python3}"
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
began=$(date +%s)

if ! "$PYTHON" -c 'import adatom.cli, pytest' 2>/dev/null; then
    echo "setting up .venv-gpu"
    [ -x .venv-gpu/bin/python ] || "$PYTHON" -m venv .venv-gpu || exit 1
    own=.venv-gpu/bin/python
    # packages of the first interpreter are seen from the new one, after its own: the way to a torch that is there
    "$PYTHON" -c 'import torch; assert torch.cuda.is_available(); print("\n".join(__import__("site").getsitepackages()))' \
        2>/dev/null > "$("$own" -c 'import site; print(site.getsitepackages()[0])')/outer.pth"
    "$own" -c 'import torch' 2>/dev/null || "$own" -m pip install --quiet torch || exit 1
    # the package itself is found where it lies: what it needs is all that is installed
    "$own" -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]))' \
        > .venv-gpu/needs.txt
    "$own" -m pip install --quiet -r .venv-gpu/needs.txt pytest || echo "not all could be installed: trying with what is here"
    PYTHON=$own
fi
exec "$PYTHON" benchmarks/gpu/run_all.py --began "$began" "$@"
