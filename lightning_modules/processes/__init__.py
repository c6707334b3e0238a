"""The machine under a job: processes that belong together, devices that are shared, signals that stop."""
