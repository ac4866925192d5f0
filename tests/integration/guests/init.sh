#!/bin/sh
# The guest's first process: configures the card by DHCP, tries everything once, says what happened on the console,
# one line per check: "AERO-CHECK <name> ok|failed <what was seen>". The lines between @…@ are filled in by images.py.
export PATH=/bin
interface=@INTERFACE@
web=@WEB@

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
for module in @MODULES@; do insmod "/modules/$module" || echo "insmod $module failed"; done
stty -onlcr 2>/dev/null

# check NAME COMMAND…: the last line of the command's output is what was seen.
check() {
  name=$1
  shift
  if seen=$("$@" 2>/tmp/errors); then verdict=ok; else verdict=failed; fi
  echo "AERO-CHECK $name $verdict $(echo "$seen" | tail -n 1)"
  [ "$verdict" = ok ] || cat /tmp/errors
}

# wait_for FILE TENTHS: until the file exists.
wait_for() {
  tenths=$2
  while [ ! -e "$1" ]; do
    [ "$tenths" -gt 0 ] || return 1
    tenths=$((tenths - 1))
    usleep 100000
  done
}

lease() {
  udhcpc -i "$interface" -s /udhcpc.sh -p /tmp/udhcpc.pid -t 30 -T 1 >/tmp/udhcpc.log 2>&1 &
  wait_for /tmp/bound 600 && cat /tmp/bound
}
renew() {
  kill -USR1 "$(cat /tmp/udhcpc.pid)"
  wait_for /tmp/renewed 300 && cat /tmp/renewed
}
ping_gateway() { ping -c 1 -W 20 10.0.2.2 | grep -o '1 packets received'; }
http_by_name() { wget -q -O - http://web.example.test/hello; }
download() { wget -q -O /tmp/16MiB "http://$web/16MiB" && sha256sum </tmp/16MiB | cut -d ' ' -f 1; }

driver=$(readlink "/sys/class/net/$interface/device/driver")
echo "AERO-DRIVER ${driver##*/}"
ip link set lo up
ip link set "$interface" up
check lease lease
check ping ping_gateway
check dns-udp guestnet dns udp 10.0.2.2 web.example.test A
check dns-tcp guestnet dns tcp 10.0.2.2 big.example.test TXT
check http-by-name http_by_name
check download download
check upload guestnet upload "$web" 80 /tmp/16MiB
check half-close guestnet half-close "$web" 7 20000
check udp-echo guestnet udp-echo "$web" 7 echoed-over-udp
check renewal renew
echo AERO-END
poweroff -f
