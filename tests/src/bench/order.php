<?php
// /order.php?w=ADDRESS&r=ADDRESS&tag=TEXT&hot=N&sync=0|1&work=MILLISECONDS
// A shop's order: connects, works, takes one of the hot articles and inserts the order in one transaction, and goes.
// Then, as the page after it would, connects anew and reads the order.
mysqli_report(MYSQLI_REPORT_OFF);
header('Content-Type: application/json');
$answer = ['committed' => false, 'fresh' => null];
$finish = function (string $step, ?mysqli $db = null) use (&$answer) {
    $answer['step'] = $step;
    $answer['errno'] = $db ? $db->errno : mysqli_connect_errno();
    $answer['error'] = $db ? $db->error : (string)mysqli_connect_error();
    die(json_encode($answer) . "\n");
};
$connect = function (string $address, string $step) use ($finish) {
    $db = mysqli_init();
    $db->options(MYSQLI_OPT_CONNECT_TIMEOUT, 30);
    $db->options(MYSQLI_OPT_READ_TIMEOUT, 30);
    [$host, $port] = explode(':', $address);
    if (!@$db->real_connect($host, 'app', 'app', 't', (int)$port)) {
        $finish($step);
    }
    return $db;
};

$db = $connect($_GET['w'], 'connect to write');
usleep(1000 * (int)$_GET['work']);
$tag = $db->real_escape_string($_GET['tag']);
$hot = (int)$_GET['hot'];
if (!@$db->begin_transaction()
    || !@$db->query("UPDATE hot SET n = n - 1 WHERE id = $hot")
    || !@$db->query("INSERT INTO a(v) VALUES('$tag')")) {
    $finish('write', $db);
}
$id = $db->insert_id;
if (!@$db->commit()) {
    $finish('commit', $db);
}
$answer['committed'] = true;
$db->close();

$db = $connect($_GET['r'], 'connect to read');
if ($_GET['sync'] && !@$db->query('SET SESSION wsrep_sync_wait = 1')) {
    $finish('read', $db);
}
$result = @$db->query("SELECT v FROM a WHERE id = $id");
if (!$result) {
    $finish('read', $db);
}
$answer['fresh'] = ($result->fetch_row()[0] ?? null) === $_GET['tag'];
echo json_encode($answer), "\n";
