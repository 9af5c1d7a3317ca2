"""Gunicorn's configuration as mcp-launch passes it on, made for one start of the server."""
