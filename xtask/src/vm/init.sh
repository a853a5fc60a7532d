#!/busybox sh
# First in the archive's own file system, then in one of which mounts can be made and unmade like on a real host.
if [ "$1" != tests ]; then
    echo "ctrl-exec-vm: up"
    /busybox mkdir -p /host
    /busybox mount -t tmpfs -o mode=755 host /host
    for each in bin busybox dev etc init lib lib64 modules proc sbin tests usr; do
        [ ! -e "/$each" ] || /busybox cp -a "/$each" /host/
    done
    exec /busybox switch_root /host /init tests
fi
for module in /modules/*.ko; do
    [ ! -e "$module" ] || /busybox insmod "$module"
done
/busybox mkdir -p /usr/local/bin /lib /sys /tmp /run /root /home /opt /mnt /srv /var/tmp /var/lib
/busybox chmod 1777 /tmp /var/tmp
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs dev /dev
/busybox mkdir -p /dev/pts /dev/shm
/busybox mount -t devpts devpts /dev/pts
/busybox mount -t tmpfs shm /dev/shm
/busybox mount -t tmpfs run /run
/busybox mount -t cgroup2 cgroup /sys/fs/cgroup
echo "+cpu +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
# A process that has changed its ids may be looked into by its new account, unless it says otherwise itself (proc_sys_fs(5)).
echo 1 >/proc/sys/fs/suid_dumpable
# As systemd has it: everything shared.
/usr/bin/mount --make-rshared /
/busybox ip link set lo up
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin CTRL_EXEC_ALL_CONTROLLERS=1 CI=true RUST_BACKTRACE=1
export CTRL_EXEC_BIN=/tests/ctrl-exec
/busybox uname -rv
cd /tests
status=0
# One at a time: emulated, two are slower than one after the other.
for program in unit it; do
    # And as a service has it: a group of its own to divide.
    [ ! -e $program ] || (
        /busybox mkdir /sys/fs/cgroup/tests-$program
        echo 0 >/sys/fs/cgroup/tests-$program/cgroup.procs
        export $(cat machine)
        exec ./$program --test-threads 1 $(cat $program.filters)
    ) || status=$?
done
echo "ctrl-exec-vm: tests ended with $status"
/busybox poweroff -f
