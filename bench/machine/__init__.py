"""The machine at hand: device, environment, telemetry, failures."""
