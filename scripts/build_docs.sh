#!/usr/bin/env bash
# Build the pages as a site, in build/docs, with the extra `docs`. A warning is an error: a broken link, a name that the
# API reference does not find, a docstring that is not valid reStructuredText. Nothing is fetched.
#
#   scripts/build_docs.sh        (PYTHON names the interpreter)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
"$python" -c "import furo, myst_parser, sklearn, sphinx" ||
    { echo "the pages need the extra docs: pip install 'xpnet[docs]'" >&2; exit 2; }
"$python" -m sphinx --fresh-env --fail-on-warning --keep-going --nitpicky --quiet -b html docs build/docs
echo "the site is build/docs/index.html"
