#!/bin/sh
# Install soilweave as every node has it, into the Python environment that is active. From the
# repository's root: `infra/install.sh dependencies`, then `infra/install.sh package`. The image
# calls both, and so can a machine without containers.
set -eu

case "${1:-}" in
dependencies)
    # What the package needs, what reads the providers' services and formats, and what the MLflow
    # server needs for logins, a bucket and PostgreSQL. In versions of constraints.txt.
    requirements=$(mktemp)
    trap 'rm -f "$requirements"' EXIT
    python - > "$requirements" <<'END'
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["sources"], *extras["export"], sep="\n")
END
    pip install --no-cache-dir --requirement "$requirements" --constraint infra/constraints.txt \
        'mlflow[auth]' psycopg2-binary boto3
    ;;
package)
    pip install --no-cache-dir --no-deps .
    ;;
*)
    echo "usage: infra/install.sh dependencies|package" >&2
    exit 2
    ;;
esac
