#!/usr/bin/env bash
# On a machine with CUDA, in under 8 minutes: the tests that need it, then the table of benchmarks/gpu.py.
# Needs torch, numpy, scipy, scikit-learn, tqdm, filelock, pytest, hypothesis and tensorboard; neither faiss nor hydra.
# What it writes goes to the folder in OUT, or to benchmarks/results.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/results}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
mkdir -p "$out"
PYTHONUNBUFFERED=1 timeout "${TEST_SECONDS:-170}" "$python" -m pytest tests -m gpu -q -p no:cacheprovider --durations=5 2>&1 |
    tee "$out/gpu-tests.txt"
tests=$?
"$python" -m benchmarks.gpu --device "${DEVICE:-cuda}" --out "$out" --seconds "${TABLE_SECONDS:-300}" ${GPU_TABLE_OPTIONS:-}
table=$?
[ "$tests" = 0 ] && [ "$table" = 0 ]
