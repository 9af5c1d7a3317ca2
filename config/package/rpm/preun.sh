# 0: the package is removed, and not replaced by another version.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now mcp-launch.service || :
fi
