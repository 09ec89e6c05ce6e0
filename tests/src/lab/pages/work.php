<?php
// Holds a worker for the node's work time (microseconds in the file `work`, changeable while it runs);
// with ?burn=1 it uses the processor meanwhile.
$microseconds = (int)file_get_contents(__DIR__ . '/work');
if (isset($_GET['burn'])) {
    $end = microtime(true) + $microseconds / 1e6;
    while (microtime(true) < $end) {
        hash('sha256', 'work');
    }
} else {
    usleep($microseconds);
}
echo gethostname(), "\n";
