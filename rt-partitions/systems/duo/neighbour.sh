#!/bin/busybox sh
# The neighbour of the demonstration: it idles, then runs stress-ng for a time, and idles again. Two marks in the
# hypervisor's trace, bytes written to I/O port 0x80, say when it worked.
# On the kernel's command line: work=S, the seconds since boot at which the work begins, and seconds=S, how long it takes.

/bin/busybox mkdir -p /bin /dev /proc /sys /tmp
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || mdev -s
exec </dev/null >/dev/null 2>&1

say() {
    echo "report: $*" >/dev/kmsg
}

# Writes a byte, in octal, to I/O port 0x80 = 128.
mark() {
    printf "\\$1" | dd of=/dev/port bs=1 seek=128 conv=notrunc 2>/dev/null
}

work=4 seconds=2
for word in $(cat /proc/cmdline); do
    case $word in
        work=*) work=${word#*=} ;;
        seconds=*) seconds=${word#*=} ;;
    esac
done

say "$(uname -srv), $(nproc) vCPUs"
read -r now _ </proc/uptime
sleep $((work - ${now%.*}))
mark 340
stress-ng --cpu "$(nproc)" --vm "$(nproc)" --vm-bytes 32M --switch 1 --timer 1 --temp-path /tmp --timeout "$seconds" \
    --metrics-brief >/tmp/figures 2>&1
mark 341
while read -r line; do
    say "$line"
done </tmp/figures
while :; do
    sleep 1000
done
