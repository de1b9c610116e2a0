"""The engine that calls a site's own launcher."""
