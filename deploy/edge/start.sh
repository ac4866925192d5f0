#!/bin/sh
# Starts the TLS edge: certificate, what is of the site, then nginx in this process's place. docs/compose.md
#
#   EDGE_UPSTREAM   host:port of the proxy (aero-l2-proxy:8090)
#   EDGE_MEETING    folder where edge and proxy tell each other their addresses; then EDGE_UPSTREAM is not looked at
#   EDGE_IS         what this edge calls itself there (edge)
#   EDGE_SESSION    host:port of a gateway that answers /session; proxy: the proxy itself, which is the default
#   EDGE_HTTPS_PORT the port that browsers see (443), for redirects
#   EDGE_NAMES      names and addresses of the certificate made here (localhost 127.0.0.1)
#   EDGE_TLS        folder of a certificate of yours: fullchain.pem, privkey.pem (/etc/aero-edge/tls)
#   EDGE_STATE      folder where one that is made here stays (/var/lib/aero-edge)
#   EDGE_DEMO       folder of the demo page; none if blank
set -eu
umask 077

run=/run/aero-edge # tmpfs
config=${EDGE_CONFIG:-/etc/aero-edge/nginx.conf}
own=${EDGE_TLS:-/etc/aero-edge/tls}
state=${EDGE_STATE:-/var/lib/aero-edge}

say() { printf '%s\n' "aero-edge: $*" >&2; }
die() { say "$*"; exit 2; }

# need_address NAME VALUE: host:port and nothing that could be anything else in nginx's configuration.
need_address() {
  case $2 in
    *[!A-Za-z0-9.:_-]* | *:*[!0-9]* | :* | *: | '') die "$1=$2 is not host:port; write for example aero-l2-proxy:8090" ;;
    *:*) ;;
    *) die "$1=$2 has no port; write for example aero-l2-proxy:8090" ;;
  esac
}

# make_certificate: signed by itself, for the names of EDGE_NAMES, good for ten years. Browsers ask before they go on.
make_certificate() {
  names=
  for name in ${EDGE_NAMES:-localhost 127.0.0.1}; do
    case $name in
      *[!A-Za-z0-9.:*-]*) die "EDGE_NAMES: $name is neither a name nor an address" ;;
      *:* | *[!0-9.]*) kind=$(printf '%s' "$name" | grep -q : && echo IP || echo DNS) ;;
      *) kind=IP ;;
    esac
    names=${names:+$names,}$kind:$name
  done
  mkdir -p "$state" 2>/dev/null || die "$state is not writable: no certificate can be made there"
  [ -w "$state" ] || die "$state is not writable: no certificate can be made there"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=aero-l2 edge" \
    -addext "subjectAltName=$names" -keyout "$state/privkey.new" -out "$state/fullchain.new" 2>"$run/openssl.log" ||
    die "openssl could not make a certificate for $names: $(tail -n 1 "$run/openssl.log")"
  mv "$state/privkey.new" "$state/privkey.pem"
  mv "$state/fullchain.new" "$state/fullchain.pem"
  say "made a certificate for $names, signed by itself: for development; put your own into $own"
}

choose_certificate() {
  if [ -e "$own/fullchain.pem" ] || [ -e "$own/privkey.pem" ]; then
    for file in fullchain.pem privkey.pem; do
      [ -r "$own/$file" ] || die "$own/$file cannot be read by uid $(id -u): both files are needed there, readable"
    done
    tls=$own
  else
    if [ ! -s "$state/fullchain.pem" ] || [ ! -s "$state/privkey.pem" ]; then make_certificate; fi
    tls=$state
  fi
  ln -sfn "$tls" "$run/tls"
}

# meet_proxy: says where this edge is, and waits for the proxy to say the same. The first to come waits.
meet_proxy() {
  is=${EDGE_IS:-edge}
  { hostname -I >"$EDGE_MEETING/$is.new" && chmod 644 "$EDGE_MEETING/$is.new" &&
    mv "$EDGE_MEETING/$is.new" "$EDGE_MEETING/$is"; } 2>/dev/null
}

# until_true WHAT COMMAND…: for 60 s, five times a second.
until_true() {
  what=$1
  shift
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ "$tries" -le 300 ] || die "after 60 s still not: $what"
    sleep 0.2
  done
}

# follow_proxy PID: where the proxy says that it is somewhere else, nginx reads that; tunnels stay.
follow_proxy() {
  while sleep 2 && kill -0 "$1" 2>/dev/null; do
    now=$(cat "$EDGE_MEETING/proxy" 2>/dev/null) || continue
    if [ -n "$now" ] && [ "$now" != "$known" ]; then
      known=$now
      EDGE_UPSTREAM=$known:8090
      write_site
      kill -HUP "$1"
    fi
  done
}

write_site() {
  upstream=${EDGE_UPSTREAM:-aero-l2-proxy:8090}
  need_address EDGE_UPSTREAM "$upstream"
  session=${EDGE_SESSION:-proxy}
  [ "$session" != proxy ] || session=$upstream
  need_address EDGE_SESSION "$session"
  port=${EDGE_HTTPS_PORT:-443}
  case $port in *[!0-9]* | '') die "EDGE_HTTPS_PORT=$port is not a port" ;; esac
  [ "$port" = 443 ] && public='' || public=":$port"
  cat >"$run/site.conf" <<CONFIG
upstream aero_l2 { server $upstream max_fails=0; }
upstream session_gateway { server $session max_fails=0; }
map "" \$public_port { default "$public"; }
CONFIG
  : >"$run/demo.conf"
  [ -z "${EDGE_DEMO:-}" ] || write_demo
}

write_demo() {
  case $EDGE_DEMO in /*) ;; *) die "EDGE_DEMO=$EDGE_DEMO is not an absolute path" ;; esac
  case $EDGE_DEMO in *[!A-Za-z0-9./_-]*) die "EDGE_DEMO=$EDGE_DEMO has a character that does not belong in a path" ;; esac
  [ -r "$EDGE_DEMO/index.html" ] || die "EDGE_DEMO=$EDGE_DEMO has no index.html that can be read"
  for file in index.html demo.js stack.js; do
    case $file in
      index.html) location=/demo/ kind=text/html ;;
      *) location=/demo/$file kind=text/javascript ;;
    esac
    cat >>"$run/demo.conf" <<CONFIG
location = $location {
    root $EDGE_DEMO;
    try_files /$file =404;
    default_type "$kind; charset=utf-8";
    add_header Strict-Transport-Security "max-age=31536000" always;
    add_header X-Content-Type-Options nosniff always;
    add_header Content-Security-Policy "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'" always;
    add_header Cache-Control no-store always;
}
CONFIG
  done
}

[ -w "$run" ] || die "$run is not writable: mount a tmpfs there that uid $(id -u) may write to"
choose_certificate
if [ -n "${EDGE_MEETING:-}" ]; then
  until_true "$EDGE_MEETING is writable for uid $(id -u)" meet_proxy
  until_true "the proxy has said where it is, in $EDGE_MEETING/proxy" test -s "$EDGE_MEETING/proxy"
  known=$(cat "$EDGE_MEETING/proxy")
  EDGE_UPSTREAM=$known:8090
  follow_proxy $$ </dev/null &
fi
write_site
say "TLS on port 8443, redirects on 8080, to ${EDGE_UPSTREAM:-aero-l2-proxy:8090}"
exec nginx -e stderr -c "$config"
