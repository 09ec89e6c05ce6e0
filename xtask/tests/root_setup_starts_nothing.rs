//! Set-up's installation against a package that, like those of databases and web servers, starts and enables a server.
//!
//! It runs for real, by the system's own apt, dpkg and init scripts, but on a throw-away overlay of the file system
//! and in a network namespace and a process namespace of its own, which end with it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

/// Builds the package `lb-probe`: a server on port 47111, installed as debhelper would install it.
const BUILD: &str = r"
set -eu
mkdir -p deb/DEBIAN deb/etc/init.d deb/lib/systemd/system
cat >deb/DEBIAN/control <<'END'
Package: lb-probe
Version: 1
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: listens
END
cat >deb/etc/init.d/lb-probe <<'END'
#!/bin/sh
### BEGIN INIT INFO
# Provides: lb-probe
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop: 0 1 6
### END INIT INFO
case $1 in
    start) start-stop-daemon --start --background --pidfile /run/lb-probe.pid --make-pidfile --startas /usr/bin/perl -- \
        -MIO::Socket::INET -e 'my $server = IO::Socket::INET->new(LocalPort => 47111, Listen => 1) or die; sleep 600' ;;
    stop) start-stop-daemon --stop --oknodo --pidfile /run/lb-probe.pid --retry 5 ;;
esac
END
cat >deb/lib/systemd/system/lb-probe.service <<'END'
[Service]
ExecStart=/etc/init.d/lb-probe start
[Install]
WantedBy=multi-user.target
END
cat >deb/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
deb-systemd-helper unmask lb-probe.service >/dev/null || true
if deb-systemd-helper --quiet was-enabled lb-probe.service; then
    deb-systemd-helper enable lb-probe.service >/dev/null || true
else
    deb-systemd-helper update-state lb-probe.service >/dev/null || true
fi
update-rc.d lb-probe defaults >/dev/null
invoke-rc.d lb-probe start || exit 1
END
chmod 755 deb/DEBIAN/postinst deb/etc/init.d/lb-probe
dpkg-deb --build --root-owner-group deb lb-probe.deb >/dev/null
";

/// Lays the overlay over `/` and runs the script `$1` in it, with the work folder as `/lb-work`.
const ISOLATE: &str = r#"
set -eu
mount -t tmpfs tmpfs overlay
mkdir overlay/upper overlay/work overlay/root
mount -t overlay overlay -o lowerdir=/,upperdir=overlay/upper,workdir=overlay/work overlay/root
mkdir overlay/root/lb-work
cp lb-probe.deb apt_install.sh overlay/root/lb-work/
mount -t proc proc overlay/root/proc
mount --rbind /dev overlay/root/dev
mount -t tmpfs tmpfs overlay/root/run
ip link set lo up
exec chroot overlay/root env PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C sh -euc "$1"
"#;

/// What the cases share: the state of the host, and the way back to a host without the package.
const PRELUDE: &str = r#"
policy=/usr/sbin/policy-rc.d
rm -f "$policy"
# Where no init system has booted, as in a container, invoke-rc.d starts nothing anyway, which would hide what is looked
# for: this host says that it runs in level 2.
[ -e /sbin/init ] || ln -s /bin/true /sbin/init
rm -f /sbin/runlevel
printf '#!/bin/sh\necho N 2\n' >/sbin/runlevel
chmod 755 /sbin/runlevel
listeners() { cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == "0A" { print $2 }' | sort; }
enabled() {
    find /etc/systemd/system /etc/systemd/user -type l 2>/dev/null | sort
    find /etc/rc2.d /etc/rc3.d /etc/rc4.d /etc/rc5.d -name 'S*' 2>/dev/null | sort
}
state() { listeners; enabled; }
fail() { echo "WRONG: $1"; exit 1; }
before=$(state)
cd /lb-work
"#;

/// Runs a script on the overlay; `None` if this system is not one that set-up installs on.
fn on_overlay(case: &str, script: &str) -> Option<String> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("SKIPPED: {case}: needs root; `cargo xtask test` runs it so");
        return None;
    }
    if !Path::new("/usr/bin/apt-get").exists() || !Path::new("/usr/bin/deb-systemd-helper").exists() {
        println!("SKIPPED: {case}: no apt and deb-systemd-helper on this system");
        return None;
    }
    let work = WorkFolder(std::env::temp_dir().join(format!("lb-{case}-{}", process::id())));
    fs::create_dir_all(work.0.join("overlay")).unwrap();
    fs::write(work.0.join("apt_install.sh"), include_str!("../src/apt_install.sh")).unwrap();
    let built = Command::new("sh").args(["-c", BUILD]).current_dir(&work.0).status().unwrap();
    assert!(built.success(), "the package was not built");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .args([ISOLATE, "isolate", &format!("{PRELUDE}\n{script}")])
        .current_dir(&work.0)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{case}: {}\n{text}", output.status);
    Some(text)
}

/// A folder that goes with the test. Nothing is mounted in it outside of the test's own namespace.
struct WorkFolder(PathBuf);

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn package_starts_a_server_where_nothing_holds_it_back() {
    // Without this the next test would also pass on a package that never starts.
    on_overlay(
        "package_starts_a_server_where_nothing_holds_it_back",
        r#"
        dpkg -i lb-probe.deb
        tries=0
        until listeners | grep -q ':B807$'; do
            tries=$((tries + 1))
            [ "$tries" -lt 100 ] || fail "the package did not start its server"
            sleep 0.1
        done
        enabled | grep -q 'multi-user.target.wants/lb-probe.service' || fail "the package enabled no unit"
        "#,
    );
}

#[test]
fn installation_starts_and_enables_nothing() {
    let text = on_overlay(
        "installation_starts_and_enables_nothing",
        r#"
        sh apt_install.sh ./lb-probe.deb
        dpkg-query -W -f '${Status}\n' lb-probe | grep -q 'ok installed' || fail "it is not installed"
        sleep 1
        [ "$(state)" = "$before" ] || { echo "$before" >b; state >a; diff b a; fail "listeners or units changed"; }
        [ ! -e "$policy" ] || fail "policy-rc.d was left behind"
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        dpkg -i lb-probe.deb >/dev/null
        enabled | grep -q lb-probe.service && fail "an upgrade would enable the unit again"
        exit 0
        "#,
    );
    assert!(text.is_none_or(|text| text.contains("left disabled: lb-probe.service")));
}

#[test]
fn policy_of_the_user_is_back_afterwards_even_if_the_installation_fails() {
    on_overlay(
        "policy_of_the_user_is_back_afterwards_even_if_the_installation_fails",
        r#"
        printf '#!/bin/sh\nexit 104\n' >"$policy"
        chmod 700 "$policy"
        sum=$(cat "$policy"; stat -c %a "$policy")
        sh apt_install.sh ./lb-probe.deb
        [ "$(cat "$policy"; stat -c %a "$policy")" = "$sum" ] || fail "the policy is another one after success"
        if sh apt_install.sh no-such-package-anywhere; then fail "a missing package was no failure"; fi
        [ "$(cat "$policy"; stat -c %a "$policy")" = "$sum" ] || fail "the policy is another one after failure"
        [ -z "$(find /usr/sbin -name 'policy-rc.d.*')" ] || fail "a copy was left behind"
        "#,
    );
}
