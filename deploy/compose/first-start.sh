#!/bin/sh
# Makes the secrets where there are none, and writes down the machine's addresses. Ends at once; compose.yaml
set -eu

state=${AERO_L2_STATE:-/var/lib/aero-l2}
grafana=${AERO_L2_GRAFANA_PASSWORD:-/var/lib/grafana-password}
meeting=${AERO_L2_MEETING:-/run/aero-l2-meeting}
host=${AERO_L2_HOST_NET:-/host/net} # /proc/1/net of the machine

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

# addresses: those of the machine, as the kernel tells its first process, without loopback and link-local ones; with
# commas. A container's own network would show its own addresses only.
addresses() {
  {
    awk '/[|]--/ { address = $2 } /host LOCAL/ && address !~ /^127[.]/ { print address }' "$host/fib_trie"
    [ ! -r "$host/if_inet6" ] || awk '$4 == "00" { print $1 }' "$host/if_inet6" | sed 's/..../&:/g; s/:$//'
  } | sort -u | paste -sd, -
}

[ -w "$state" ] || die "$state is not writable for uid $(id -u): it has to be a volume of this container's"
make_secret "$state/session-secret" "a session secret, which signs cookies"
make_secret "$state/api-key" "an API key; to see it: docker-compose exec aero-l2-proxy cat $state/api-key"
[ ! -d "$grafana" ] || make_secret "$grafana/password" "Grafana's password for admin"
[ ! -d "$meeting" ] || chmod 1777 "$meeting"
[ -r "$host/fib_trie" ] || die "$host/fib_trie cannot be read: /proc/1/net has to be mounted there"
found=$(addresses)
[ -n "$found" ] || say "this machine has no address but loopback: there is none to keep guests away from"
printf '%s\n' "$found" >"$state/host-addresses.new"
chmod 444 "$state/host-addresses.new"
mv "$state/host-addresses.new" "$state/host-addresses"
say "guests are kept away from this machine's addresses: $found"
