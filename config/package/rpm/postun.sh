if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # 1: another version has taken its place.
    if [ "$1" -ge 1 ]; then
        systemctl try-restart mcp-launch.service || :
    fi
fi
