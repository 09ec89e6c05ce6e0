#!/usr/bin/env bash
# Starts `lb` for one service: balancer.sh SERVICE-ADDRESS NODE-ADDRESS…
set -euo pipefail

service=$1
shift

# Beside the old program, then in its place: a running one cannot be written over.
install -m 755 /src/target/release/lb /usr/local/bin/lb.new
mv /usr/local/bin/lb.new /usr/local/bin/lb

interface=$(ip -o -4 address show to "$service" | awk '{print $2; exit}')
if [ -z "$interface" ]; then
    echo "no interface has the service's address $service" >&2
    exit 1
fi

install -d /etc/lb
bash /src/vagrant/configuration.sh "$interface" "$service" "$@" >/etc/lb/lb.toml

cat >/etc/systemd/system/lb.service <<'UNIT'
[Unit]
Description=lb, a layer-4 load balancer in XDP
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/local/bin/lb run --config /etc/lb/lb.toml
Restart=on-failure
RestartSec=1

[Install]
WantedBy=multi-user.target
UNIT

# A mistake in the file shows here, before the running balancer is touched.
/usr/local/bin/lb check --config /etc/lb/lb.toml
systemctl daemon-reload
systemctl enable lb.service
systemctl restart lb.service
