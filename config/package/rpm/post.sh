# Without systemd there is no service, and so no need for its user.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers mcp-launch.conf
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
