#!/bin/sh
# A server that loadtest starts: notes how, and says that it is ready where a test serves already.
printf '%s\n' "$@" > "$NOTES"
echo "$READY"
exec tail -f /dev/null
