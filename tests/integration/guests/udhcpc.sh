#!/bin/sh
# Called by udhcpc(8) with what happened; applies the lease and notes it where init.sh looks (or in $NOTES).
notes=${NOTES:-/tmp}
seen="$ip/$mask router $router dns $dns lease $lease server $serverid mtu $mtu"
case "$1" in
  deconfig) ip address flush dev "$interface" ;;
  bound)
    ip address add "$ip/$mask" dev "$interface"
    ip route add default via "$router"
    echo "nameserver $dns" >/etc/resolv.conf
    echo "$seen" >"$notes/bound.new"
    mv "$notes/bound.new" "$notes/bound"
    ;;
  renew)
    echo "$seen" >"$notes/renewed.new"
    mv "$notes/renewed.new" "$notes/renewed"
    ;;
esac
