<?php
// /db.php?h=ADDRESS&p=PORT&ct=SECONDS&rt=SECONDS&sleep=SECONDS&tag=TEXT
// Connects, has the server sleep if that is asked for, inserts a row and reads it back on the same connection. 503 with the error's number if it fails.
mysqli_report(MYSQLI_REPORT_OFF);
header('Content-Type: application/json');
$start = microtime(true);
$elapsed = fn() => round(1000 * (microtime(true) - $start), 2);
$fail = function (string $step, int $number, string $text) use ($elapsed) {
    http_response_code(503);
    die(json_encode(['step' => $step, 'errno' => $number, 'error' => $text, 'ms' => $elapsed()]) . "\n");
};
$db = mysqli_init();
$db->options(MYSQLI_OPT_CONNECT_TIMEOUT, (int)($_GET['ct'] ?? 15));
$db->options(MYSQLI_OPT_READ_TIMEOUT, (int)($_GET['rt'] ?? 30));
if (!@$db->real_connect($_GET['h'], 'app', 'app', 't', (int)($_GET['p'] ?? 3306))) {
    $fail('connect', mysqli_connect_errno(), (string)mysqli_connect_error());
}
$connected = $elapsed();
$sleep = (float)($_GET['sleep'] ?? 0);
if ($sleep > 0 && !@$db->query("DO SLEEP($sleep)")) {
    $fail('sleep', $db->errno, $db->error);
}
$value = $_GET['tag'] ?? bin2hex(random_bytes(6));
if (!@$db->query("INSERT INTO a(v) VALUES('" . $db->real_escape_string($value) . "')")) {
    $fail('insert', $db->errno, $db->error);
}
$id = $db->insert_id;
$result = @$db->query("SELECT v, @@wsrep_node_name AS node FROM a WHERE id=$id");
if (!$result) {
    $fail('select', $db->errno, $db->error);
}
$row = $result->fetch_assoc();
echo json_encode([
    'id' => $id,
    'value' => $row['v'] ?? null,
    'ok' => ($row['v'] ?? null) === $value,
    'node' => $row['node'] ?? null,
    'web' => gethostname(),
    'connect_ms' => $connected,
    'ms' => $elapsed(),
]), "\n";
