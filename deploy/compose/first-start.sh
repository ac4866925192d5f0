#!/bin/sh
# Makes the secrets where there are none, and writes down the machine's addresses. Ends at once; compose.yaml
set -eu

state=${AERO_L2_STATE:-/var/lib/aero-l2}
grafana=${AERO_L2_GRAFANA_PASSWORD:-/var/lib/grafana-password}

say() { printf '%s\n' "aero-l2-first-start: $*" >&2; }
die() { say "$*"; exit 2; }

# make_secret FILE WHAT: unless it is there. Whole or not at all; readable in the containers that have the volume.
make_secret() {
  [ ! -s "$1" ] || return 0
  aero-l2 token key >"$1.new" || die "no secret could be made for $1"
  chmod 444 "$1.new"
  mv "$1.new" "$1"
  say "made $2"
}

# Every address that is no loopback and no link-local one, as a list with commas.
addresses() {
  ip -oneline address show | awk '$4 !~ /^(127\.|::1\/|fe80:)/ { sub(/\/.*/, "", $4); print $4 }' |
    sort -u | paste -sd, -
}

[ -w "$state" ] || die "$state is not writable for uid $(id -u): it has to be a volume of this container's"
make_secret "$state/session-secret" "a session secret, which signs cookies"
make_secret "$state/api-key" "an API key; to see it: docker-compose exec aero-l2-proxy cat $state/api-key"
[ ! -d "$grafana" ] || make_secret "$grafana/password" "Grafana's password for admin"
found=$(addresses)
[ -n "$found" ] || die "this machine has no address, or ip(8) shows none: guests could not be kept away from it"
printf '%s\n' "$found" >"$state/host-addresses.new"
chmod 444 "$state/host-addresses.new"
mv "$state/host-addresses.new" "$state/host-addresses"
say "guests are kept away from this machine's addresses: $found"
