"""Gunicorn's configuration as mcp-launch hands it on, made for one start of the server."""
