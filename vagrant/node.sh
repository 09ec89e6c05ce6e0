#!/usr/bin/env bash
# A web node: nginx and PHP-FPM, a page that names its host, and FPM's status and ping pages.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends nginx-light php-fpm

php=$(find /etc/php -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -V | tail -n 1)

# A pool's status answers at once on a listener of its own, even when all of the pool's workers are busy.
cat >"/etc/php/$php/fpm/pool.d/zz-lb.conf" <<'POOL'
[www]
pm.status_path = /status
pm.status_listen = 9001
ping.path = /ping
POOL

cat >/etc/nginx/sites-available/default <<SITE
server {
    listen 80 default_server;
    root /var/www/html;
    index index.php;
    location / {
        try_files \$uri \$uri/ /index.php;
    }
    location ~ ^/(index\\.php|ping)\$ {
        include fastcgi_params;
        fastcgi_param SCRIPT_FILENAME \$document_root\$fastcgi_script_name;
        fastcgi_pass unix:/run/php/php$php-fpm.sock;
    }
}
SITE

cat >/var/www/html/index.php <<'PAGE'
<?php
header('Content-Type: text/plain');
printf("%s answers %s\n", gethostname(), $_SERVER['REMOTE_ADDR']);
PAGE

systemctl restart "php$php-fpm" nginx
