use super::*;

fn config() -> Config {
    Config {
        server: Server::Gunicorn,
        app: "my.app:app".into(),
        factory: false,
        calls_factories: true,
        worker_class: None,
        limit: Some(2),
        max_streams: None,
        health_path: "/health".into(),
        exempt: vec!["/a".into(), "/b\"\\\n".into()],
        deals: true,
        line: None,
        listeners: vec![7, 8],
        backlog: 2048,
        max_requests: None,
        poke: Some(9),
        board: Some(5),
        beat: Duration::from_millis(250),
        grace: Duration::from_secs(25),
    }
}

#[test]
fn the_constants_are_python_and_what_was_meant() {
    let text = config().source();
    let (constants, _) = text.split_once("# Gunicorn: sharing").unwrap();
    let script = format!(
        "{constants}\nprint([APP, LIMIT, MAX_STREAMS, EXEMPT, BOARD, BEAT, FACTORY, GRACE, DEALS, LISTENERS, POKE])"
    );
    let output = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
    let wanted = r#"['my.app:app', 2, None, ('/a', '/b"\\\n'), 5, 0.25, False, 25, True, (7, 8), 9]"#;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), wanted, "{output:?}");
}
