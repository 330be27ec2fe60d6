"""Noising processes and their losses: iDDPM, flow matching, EDM."""
