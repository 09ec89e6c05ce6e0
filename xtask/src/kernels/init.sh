#!/usr/bin/busybox sh
# Process 1 of the virtual machine: runs every test binary in /tests and turns the machine off. What it says in lines
# that begin with `lb-kernels: ` is read by `console.rs`.
/usr/bin/busybox --install -s /usr/bin 2>/dev/null
export PATH=/usr/sbin:/usr/bin LB_BIN=/usr/bin/lb RUST_BACKTRACE=1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /tmp
stty -onlcr </dev/console
ip link set lo up
while read -r module; do
    insmod "/modules/$module" || echo "lb-kernels: broken: module $module does not load"
done </modules/order

echo "lb-kernels: release $(uname -r)"
for test in /tests/*; do
    echo "lb-kernels: begin ${test##*/}"
    "$test" --nocapture --test-threads 1 </dev/null 2>&1
    echo "
lb-kernels: end ${test##*/} $?"
done
# What the kernel itself complained about meanwhile.
dmesg | grep -E 'WARNING: |BUG: |Oops' | sed 's/^/lb-kernels: kernel said: /'
echo "lb-kernels: done"
poweroff -f
