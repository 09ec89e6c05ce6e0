#!/usr/bin/env bash
# Prints the balancer's configuration: configuration.sh INTERFACE SERVICE-ADDRESS NODE-ADDRESS…
set -euo pipefail

interface=$1
service=$2
shift 2

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
