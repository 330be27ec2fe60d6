"""Options of commands that train networks, or sample and analyse trained ones."""
