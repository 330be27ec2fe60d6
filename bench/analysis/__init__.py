"""What records say together."""
