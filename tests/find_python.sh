#!/bin/sh
# Prints the path of a Python $PYTHON_VERSION on this machine (PATH first, then pyenv); fails when there is none.
for candidate in "python$PYTHON_VERSION" "$HOME"/.pyenv/versions/"$PYTHON_VERSION".*/bin/python; do
  if path=$(command -v "$candidate" 2>/dev/null) &&
     "$path" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$PYTHON_VERSION')" 2>/dev/null; then
    echo "$path"
    exit 0
  fi
done
exit 1
