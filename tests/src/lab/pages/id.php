<?php
// The name of the node that served the page.
echo gethostname(), "\n";
