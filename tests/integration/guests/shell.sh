#!/bin/sh
# The guest's first process where a test drives the guest itself: a shell on the console, with a DHCP client beside it.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
stty -onlcr -echo 2>/dev/null
ip link set lo up
ip link set @INTERFACE@ up
udhcpc -i @INTERFACE@ -s /udhcpc.sh -p /tmp/udhcpc.pid -t 300 -T 1 >/tmp/udhcpc.log 2>&1 &
echo AERO-SHELL
while read -r line; do eval "$line"; done
poweroff -f
