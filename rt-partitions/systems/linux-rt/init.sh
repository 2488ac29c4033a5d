#!/bin/busybox sh
# Runs cyclictest, prints its figures through the kernel's log, and reports the result at port 0xF4.
# cyclictest_loops=N on the kernel's command line sets the number of loops.

/bin/busybox mkdir -p /bin /dev /proc /sys /tmp
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || true
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
[ -c /dev/kmsg ] || mknod /dev/kmsg c 1 11
[ -c /dev/port ] || mknod /dev/port c 1 4

# One record of the kernel's log a line: the serial driver's own console path works without interrupts.
say() {
    echo "linux-rt: $*" >/dev/kmsg
}

# Ends the partition with a byte, written to I/O port 0xF4 = 244.
report() {
    printf "$1" | dd of=/dev/port bs=1 seek=244 conv=notrunc 2>/dev/null
}

loops=1000
for word in $(cat /proc/cmdline); do
    case $word in
        cyclictest_loops=*) loops=${word#*=} ;;
    esac
done

say "$(uname -srv)"
say "clock source $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
say "cyclictest -m -p 90 -i 1000 -l $loops -q"
if cyclictest -m -p 90 -i 1000 -l "$loops" -q >/tmp/figures 2>&1; then
    status='\020'
else
    status='\021'
fi
while read -r line; do
    say "$line"
done </tmp/figures
# Figures of a run that measured nothing are no success.
grep -q 'Max:' /tmp/figures || status='\021'
# A PREEMPT_RT kernel prints its log from a thread of low priority: let it, before the partition ends.
sleep 1
report "$status"

say "the port did not end the partition"
while :; do
    sleep 1
done
