"""What the console commands do once their parts are built: examine, draw, report. Each file is one job."""
