# Sourced by the scripts of this folder: goes to the repository's root and makes .venv ready.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stop() {
    echo "walkstream: $*" >&2
    exit 1
}

if ! .venv/bin/python -c '' 2>/dev/null; then
    command -v python3 >/dev/null || stop "python3 is missing; install Python 3.11 or newer"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "python3 is $(python3 -V | cut -d' ' -f2); Python 3.11 or newer is needed"
    python3 -c 'import venv, ensurepip' 2>/dev/null ||
        stop "python3 has no venv; install it (python3-venv on Debian and Ubuntu)"
    rm -rf .venv
    python3 -m venv .venv || stop "the virtual environment .venv could not be made"
fi

# The copy of pyproject.toml says what was installed from.
if ! cmp -s pyproject.toml .venv/pyproject.toml; then
    echo "walkstream: installing into .venv (a minute or two, once) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" ||
        stop "the installation into .venv failed, see above"
    cp pyproject.toml .venv/pyproject.toml
fi
