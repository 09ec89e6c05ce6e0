<?php
// /shop.php?h=ADDRESS&tag=TEXT
// A page of a shop: works for the node's work time, then writes a row and reads it back.
usleep((int)file_get_contents(__DIR__ . '/work'));
require __DIR__ . '/db.php';
