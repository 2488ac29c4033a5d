#!/bin/busybox sh
# The real-time side of the demonstration: cyclictest on all vCPUs, first while the neighbour idles, then while it works.
# Each measurement lies between two marks in the hypervisor's trace: bytes written to I/O port 0x80, which the guest does
# not own and which does nothing. `partita run` makes its report of the marks and of what is printed here.
# On the kernel's command line: loops=N a vCPU and measurement (default 500), begin=S and again=S, the seconds since boot at
# which the first and the second measurement begin.

/bin/busybox mkdir -p /bin /dev /proc /sys /tmp
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || mdev -s
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm

# The serial port is left alone from here on: while it is open, Linux polls it.
exec </dev/null >/dev/null 2>&1

say() {
    echo "report: $*" >/dev/kmsg
}

# Writes a byte, in octal, to I/O port 0x80 = 128.
mark() {
    printf "\\$1" | dd of=/dev/port bs=1 seek=128 conv=notrunc 2>/dev/null
}

loops=500 begin=3 again=5
for word in $(cat /proc/cmdline); do
    case $word in
        loops=*) loops=${word#*=} ;;
        begin=*) begin=${word#*=} ;;
        again=*) again=${word#*=} ;;
    esac
done

# Waits until so many seconds since boot.
until_uptime() {
    read -r now _ </proc/uptime
    [ "${now%.*}" -ge "$1" ] || sleep $(($1 - ${now%.*}))
}

# What the monotonic clock shows between two marks: the host tool relates it to the time-stamp counter. The file is read in
# one go by a shell that runs already, so that the marks are near.
relate_clocks() {
    exec 3>/dev/port 4>/dev/port 5</proc/timer_list
    dd bs=1 seek=128 count=0 >&3
    dd bs=1 seek=128 count=0 >&4
    printf '\320' >&3
    read -r line <&5
    printf '\321' >&4
    read -r line <&5
    read -r line <&5
    exec 3>&- 4>&- 5<&-
    say "monotonic clock: $line"
}

# NAME BEGIN-MARK END-MARK: cyclictest's histogram, without empty rows, and the worst wake-up with its time.
measure() {
    mark "$2"
    cyclictest --quiet --mlockall --priority=95 --smp --interval=1000 --loops="$loops" --histogram=1000 \
        --spike=1 --spike-nodes=$((loops * $(nproc) + 16)) >/tmp/figures
    status=$?
    mark "$3"
    say "$1: status $status"
    awk '/^[0-9]/ { sum = 0; for (i = 2; i <= NF; i++) sum += $i; if (sum > 0) print }
        /^# (Total|Min|Avg|Max|Histogram Overflows)/' /tmp/figures >/tmp/rows
    while read -r line; do
        say "$1: $line"
    done </tmp/rows
    say "$1: worst: $(grep Spike: /tmp/figures | sort -t : -k 3,3n | tail -n 1)"
}

say "$(uname -srv), $(nproc) vCPUs, clock source $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
until_uptime "$begin"
measure alone 300 301
until_uptime "$again"
measure beside 302 303
relate_clocks
say end
# The log is printed by a thread of low priority, and the neighbour has its own figures to print: let them.
sleep 2
poweroff -f
