#!/usr/bin/env bash
# Man pages and unit file, held against the tools that read them. Called by `make check`.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0

if command -v mandoc >/dev/null; then
    for page in man/*.[178]; do
        # A page may be newer than its reader's list of pages, so references are not looked up here.
        said=$(mandoc -T lint -W warning "$page" 2>&1) || { echo "$said"; failed=1; }
    done
    echo "mandoc: $(ls man/*.[178] | wc -l) pages"
else
    echo "mandoc: not installed, man pages not checked"
fi

if command -v systemd-analyze >/dev/null; then
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    # The program is not installed yet: something that exists stands in for it.
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' systemd/ftqd@.service >"$place/ftqd@.service"
    # It warns of unknown keys with status 0; other units of this machine are none of our business.
    said=$(systemd-analyze --man=no verify "$place/ftqd@.service" 2>&1) || { echo "$said"; failed=1; }
    if grep -F 'ftqd@' <<<"$said"; then failed=1; fi
    echo "systemd-analyze: systemd/ftqd@.service"
else
    echo "systemd-analyze: not installed, unit file not checked"
fi
exit "$failed"
