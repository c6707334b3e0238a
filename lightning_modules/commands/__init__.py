"""The console commands, one file each: they compose a config and hand it over."""
