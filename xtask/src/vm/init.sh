#!/bin/busybox sh
# First in the archive's own file system, then in one of which mounts can be made and unmade like on a real host.
if [ "$1" != tests ]; then
    /bin/busybox mkdir -p /host
    /bin/busybox mount -t tmpfs -o mode=755 host /host
    for each in bin dev etc init proc tests; do /bin/busybox cp -a "/$each" /host/; done
    exec /bin/busybox switch_root /host /init tests
fi
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /usr/local/bin /sys /tmp /run /root /home /opt /var/tmp /var/lib
/bin/busybox --install -s
chmod 1777 /tmp /var/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
# As systemd has it.
mount --make-rshared /
ip link set lo up
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin CTRL_EXEC_ALL_CONTROLLERS=1 RUST_BACKTRACE=1
uname -rv
cd /tests
# One at a time: emulated, two are slower than one after the other.
xargs ./run --test-threads 1 <filters
echo "ctrl-exec-vm: tests ended with $?"
poweroff -f
