"""This machine: device, environment, telemetry, kinds of failures."""
