#!/bin/sh
# Install this checkout into a virtual environment; make and the Dockerfile both do it with this.
# Usage: scripts/install.sh VENV EXTRAS [option of pip install ...]
# For example: scripts/install.sh .venv cpu,train,dev --editable
set -eu

if [ "$#" -lt 2 ]; then
    echo "usage: $0 VENV EXTRAS [option of pip install ...]" >&2
    exit 2
fi
venv=$1
extras=$2
shift 2

"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --constraint constraints.txt "$@" ".[$extras]"
