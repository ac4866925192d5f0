#!/bin/sh
# Starts the proxy of compose.yaml: settings of deploy/.env, secrets, the machine's addresses, then the program in
# this process's place. docs/compose.md
set -eu

site=${AERO_L2_SITE:-/etc/aero-l2}       # deploy/ of the tree
state=${AERO_L2_STATE:-/var/lib/aero-l2} # what first-start.sh made
meeting=${AERO_L2_MEETING:-/run/aero-l2-meeting} # where proxy and edge tell each other their addresses
config=${AERO_L2_CONFIG:-/tmp/aero-l2.toml}
unset AERO_L2_SITE AERO_L2_STATE AERO_L2_MEETING AERO_L2_CONFIG

say() { printf '%s\n' "aero-l2-start: $*" >&2; }
die() { say "$*"; exit 2; }

# read_env FILE: NAME=value lines, taken as they are, like compose's env_file; nothing in them is executed.
read_env() {
  [ -e "$1" ] || return 0
  [ -r "$1" ] || die "deploy/.env cannot be read by uid $(id -u): chmod 644 it, and put secrets into deploy/secrets"
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      '' | '#'*) continue ;;
      [A-Za-z_]*=*) ;;
      *) die "deploy/.env: ${line%%=*} … is not NAME=value" ;;
    esac
    case ${line%%=*} in *[!A-Za-z0-9_]*) die "deploy/.env: ${line%%=*} is not the name of a setting" ;; esac
    export "${line?}"
  done <"$1"
}

# is_set NAME…: one of them has a value, by itself or from a file.
is_set() {
  for name in "$@"; do
    eval "value=\${$name:-}\${${name}_FILE:-}"
    [ -z "$value" ] || return 0
  done
  return 1
}

# choose FILE NAME…: where a secret comes from, unless deploy/.env says so by one of its names: deploy/secrets, or what
# was made at the first start. The first name is the one that is set.
choose() {
  file=$1
  shift
  ! is_set "$@" || return 0
  if [ -e "$site/secrets/$file" ]; then
    [ -r "$site/secrets/$file" ] || die "deploy/secrets/$file cannot be read by uid $(id -u): chmod 444 it"
    export "$1_FILE=$site/secrets/$file"
    [ ! -e "$site/secrets/$file-previous" ] || export "$1_PREVIOUS_FILE=$site/secrets/$file-previous"
  else
    export "$1_FILE=$state/$file"
  fi
}

# await_first_start: not every compose waits for it by itself.
await_first_start() {
  tries=0
  until [ -s "$state/host-addresses" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 150 ] || die "aero-l2-first-start has not written $state/host-addresses within 30 s: see its log"
    sleep 0.2
  done
}

# meet_edge: says where the proxy is, and has the edges believed. Networks give other addresses after a restart, unless
# they are fixed, and not every compose fixes them.
meet_edge() {
  outside=$(ip -oneline route show default | awk '{ for (i = 1; i < NF; i++) if ($i == "dev") print $(i + 1) }')
  here=$(ip -oneline -4 address show |
    awk -v outside=" $(printf '%s' "$outside" | tr '\n' ' ') " '
      $2 != "lo" && !index(outside, " " $2 " ") { sub(/\/.*/, "", $4); print $4; exit }')
  [ -n "$here" ] || die "there is no network here but the one with the way out: aero-l2-inside of compose.yaml is missing"
  { printf '%s\n' "$here" >"$meeting/proxy.new" && mv "$meeting/proxy.new" "$meeting/proxy"; } 2>/dev/null ||
    die "$meeting is not writable for uid $(id -u): aero-l2-first-start has not prepared it, see its log"
  env -i PATH="$PATH" sh "$site/compose/trusted.sh" "$meeting" "$config"
  env -i PATH="$PATH" sh "$site/compose/trusted.sh" "$meeting" "$config" $$ </dev/null &
}

await_first_start
case "$*" in
  serve*--check* | serve*--help*) ;;
  serve*)
    meet_edge
    set -- "$@" --config "$config"
    ;;
esac
read_env "$site/.env"
choose session-secret AERO_L2_SESSION_SECRET SESSION_SECRET AERO_GATEWAY_SESSION_SECRET
choose api-key AERO_L2_API_KEY AERO_L2_TOKEN
AERO_L2_DENIED_CIDRS=${AERO_L2_DENIED_CIDRS:+$AERO_L2_DENIED_CIDRS,}$(cat "$state/host-addresses")
export AERO_L2_DENIED_CIDRS
exec aero-l2 "$@"
