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
{
    printf 'interfaces = ["%s"]\n\n' "$interface"
    printf '[[service]]\nname = "web"\naddress = "%s:80/tcp"\n' "$service"
    printf 'check = { type = "http", path = "/ping", interval = "1s", timeout = "250ms" }\n'
    printf 'load = { type = "php-fpm", url = "fcgi://:9001/status", max-children = 5 }\n'
    printf 'backends = [\n'
    number=0
    for node in "$@"; do
        number=$((number + 1))
        printf '  { name = "web%d", address = "%s:80", weight = 100 },\n' "$number" "$node"
    done
    printf ']\n'
} >/etc/lb/lb.toml

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
