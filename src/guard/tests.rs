use super::*;

fn config() -> Config {
    Config {
        server: Server::Gunicorn,
        app: "my.app:app".into(),
        factory: false,
        calls_factories: true,
        worker_class: None,
        wsgi: None,
        limit: Some(Limit { start: 2, adapts: false }),
        max_streams: None,
        health_path: "/health".into(),
        exempt: vec!["/a".into(), "/b\"\\\n".into()],
        warm_up: WarmUp { paths: vec!["/ready".into()], is_https: true, place: "::1".into(), port: Some(4444) },
        time_limits: None,
        deals: true,
        line: None,
        listeners: vec![7, 8],
        backlog: 2048,
        max_requests: None,
        poke: Some(9),
        board: Some(5),
        stacks: None,
        spin: None,
        beat: Duration::from_millis(250),
        grace: Duration::from_secs(25),
    }
}

/// The files are one module, in which a later name would replace an earlier one without a word.
#[test]
fn no_name_is_defined_in_two_files() {
    let mut names = std::collections::BTreeSet::new();
    let lines = ACCEPT.iter().chain(FILES).flat_map(|(_, content)| content.lines());
    for line in lines.filter(|line| !line.starts_with(' ')) {
        let defined = match line.split_once(['(', ':']).map(|(head, _)| head.split(' ').collect::<Vec<_>>()) {
            Some(words) if matches!(words[..], ["def" | "class", _] | ["async", "def", _]) => words[words.len() - 1],
            _ => line.split_once(" = ").map_or("", |(names, _)| names),
        };
        let is_name = |name: &&str| {
            !name.trim_matches('_').is_empty() && name.chars().all(|letter| letter == '_' || letter.is_alphanumeric())
        };
        for name in defined.split(", ").filter(is_name) {
            assert!(names.insert(name.to_owned()), "{name} is defined twice");
        }
    }
    assert!(names.len() > 200, "{names:?}");
}

#[test]
fn the_constants_are_python_and_what_was_meant() {
    let text = config().source();
    let (constants, _) = text.split_once("\nexec(").unwrap();
    let script = format!(
        "{constants}\nprint([APP, LIMIT, MAX_STREAMS, EXEMPT, BOARD, BEAT, FACTORY, GRACE, DEALS, LISTENERS, POKE, \
         WARM_UP, SCHEME, HOST, ADDRESS])"
    );
    let output = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
    let wanted = r#"['my.app:app', 2, None, ('/a', '/b"\\\n'), 5, 0.25, False, 25, True, (7, 8), 9, ('/ready',), 'https', '[::1]:4444', ('::1', 4444)]"#;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), wanted, "{output:?}");
}
