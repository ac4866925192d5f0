#!/bin/sh
# trusted.sh MEETING FILE [PID]: writes whom the proxy believes as its proxies into FILE, a TOML file: the addresses that
# the edges wrote into the folder MEETING at their start. With PID: looks again every other second, and sends SIGHUP to
# that process where they have changed. Started by start.sh, with nothing in its environment.
set -eu

meeting=$1
file=$2

# addresses: those of edge and demo, each in quotes, with commas; what is no address is left out.
addresses() {
  cat "$meeting/edge" "$meeting/demo" 2>/dev/null | tr ' ' '\n' | grep -E '^[0-9a-fA-F.:]+$' | sort -u |
    sed 's/.*/"&"/' | paste -sd, - || true
}

write() {
  printf 'trusted_proxies = [%s]\n' "$1" >"$file.new"
  mv "$file.new" "$file"
}

known=$(addresses)
write "$known"
[ $# -eq 3 ] || exit 0
sleep 10 # until whoever is started in that process takes SIGHUP
while kill -0 "$3" 2>/dev/null; do
  now=$(addresses)
  if [ "$now" != "$known" ]; then
    known=$now
    write "$known"
    kill -HUP "$3"
  fi
  sleep 2
done
