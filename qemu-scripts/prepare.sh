#!/bin/sh
# Everything between a fresh clone and a program that runs: Debian packages, npm packages, build.
#
#   qemu-scripts/prepare.sh           for using it
#   qemu-scripts/prepare.sh --tests   and for testing it
#
# Does only what is not done yet, says what it does, and may be run as often as you like.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

sh qemu-scripts/setup.sh "$@"

# npm leaves a copy of the lock file behind: older than ours, the packages are not ours.
if [ ! -f node_modules/.package-lock.json ] ||
  [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say 'installing the npm packages of package-lock.json into node_modules'
  npm ci --no-audit --no-fund --loglevel=error
  touch node_modules/.package-lock.json
fi

# The QEMU plugin, for --source plugin: where there is no compiler, record says how to get it.
if command -v make >/dev/null && command -v cc >/dev/null; then
  make -s -C qemu-scripts/plugin
fi

# The build is stamped by its entry point; anything newer in src makes it stale.
if [ ! -f dist/cli/main.js ] ||
  [ -n "$(find src tsconfig.json tsconfig.build.json vite.config.ts -newer dist/cli/main.js | head -n 1)" ]; then
  say 'building dist'
  # Built beside and put in place at the end: what runs from dist meanwhile is not disturbed.
  rm -rf dist.new
  node_modules/.bin/tsc -p tsconfig.build.json --outDir dist.new
  node_modules/.bin/vite build --logLevel warn --outDir "$PWD/dist.new/web"
  chmod +x dist.new/cli/main.js
  rm -rf dist
  mv dist.new dist
fi
