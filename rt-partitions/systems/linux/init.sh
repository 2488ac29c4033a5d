#!/bin/busybox sh
# A small Linux to log in to: as root, without a password, on the partition's serial port. `poweroff` ends the partition,
# `reboot` starts it anew.

/bin/busybox mkdir -p /bin /sbin /dev /etc /proc /root /sys /tmp
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null || mdev -s

# The kernel's console: the last that its command line names.
for word in $(cat /proc/cmdline); do
    case $word in
        console=*) tty=${word#console=} tty=${tty%%,*} ;;
    esac
done
tty=${tty:-ttyS1}

hostname partita
echo 'root::0:0:root:/root:/bin/sh' >/etc/passwd
echo 'root:x:0:' >/etc/group
echo "$(uname -sr) on $(nproc) vCPUs, in a partition" >/etc/issue
cat >/etc/profile <<'PROFILE'
export PATH=/bin PS1="\\h:\\w\\$ "
PROFILE
cat >/etc/inittab <<INITTAB
$tty::respawn:/bin/getty -L $tty 115200 vt100
::shutdown:/bin/sync
INITTAB
exec /bin/init
