<?php
// /sleep.php?s=SECONDS
usleep((int)(1e6 * (float)($_GET['s'] ?? 5)));
echo "slept\n";
