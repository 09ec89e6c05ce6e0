#!/bin/sh
# Installs the packages named as arguments, and starts and enables nothing: what a package's scripts would start is
# refused by policy-rc.d, and what they enable is disabled again. Runs as root; `setup.rs` passes it to the shell.
set -eu

policy=/usr/sbin/policy-rc.d
kept=/usr/sbin/policy-rc.d.kept-by-lb-setup

# A run that was killed outright may have left these behind.
if grep -qs 'lb set-up' "$policy"; then
    rm -f "$policy"
fi
if [ -e "$kept" ] && [ ! -e "$policy" ]; then
    mv "$kept" "$policy"
fi

# Everything that the init systems would start at boot.
enabled() {
    find /etc/systemd/system /etc/systemd/user -type l 2>/dev/null || true
    find /etc/rc2.d /etc/rc3.d /etc/rc4.d /etc/rc5.d -name 'S*' 2>/dev/null || true
}

before=$(enabled)

disable_new() {
    enabled | while read -r link; do
        if printf '%s\n' "$before" | grep -qxF -- "$link"; then
            continue
        fi
        unit=$(basename "$link")
        # Where systemd itself is new, its own units stay: they serve nobody, and a machine boots by them.
        case $(dpkg-query -S "$(readlink "$link")" 2>/dev/null) in systemd:*) continue ;; esac
        case $link in
            /etc/rc?.d/*) update-rc.d "${unit#S??}" disable >/dev/null 2>&1 || rm -f "$link"; continue ;;
            *.wants/* | *.requires/*) ;;
            *) unit=$(basename "$(readlink "$link")") ;;
        esac
        scope=--system
        case $link in /etc/systemd/user/*) scope=--user ;; esac
        # It works without a running systemd, and it remembers, so that an upgrade does not enable the unit again.
        deb-systemd-helper "$scope" disable "$unit" >/dev/null 2>&1 || true
        rm -f "$link"
        echo "left disabled: $unit"
    done
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload || true
    fi
}

finish() {
    status=$?
    trap - EXIT
    rm -f "$policy"
    if [ -e "$kept" ]; then
        mv "$kept" "$policy"
    fi
    disable_new
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -e "$policy" ]; then
    mv "$policy" "$kept"
fi
# It refuses only while this shell lives, so that even a SIGKILL here leaves no host that cannot start services.
cat >"$policy" <<POLICY
#!/bin/sh
# lb set-up: nothing starts while it installs packages.
[ -d /proc/$$ ] && exit 101
[ -x $kept ] && exec $kept "\$@"
exit 0
POLICY
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
# Ubuntu's needrestart would restart the user's own services.
export NEEDRESTART_SUSPEND=1
apt-get install -y -qq --no-install-recommends --no-remove --no-upgrade \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -- "$@" </dev/null
